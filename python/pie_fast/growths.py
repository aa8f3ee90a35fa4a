"""Growths of the conditional gradient that follow one another, saved after each pass.

A budget that is searched for and a curve ask for more and more of one order. Each growth goes on
where the one before ended; one that was stopped is gone on with from its last whole pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from pie_fast.checkpoints import Checkpoints
from pie_fast.conditional import Grown
from pie_fast.cost import Cost

#: called with a growth so far
Save = Callable[[Grown], None]

_STAGE = "growths"


class Growths:
    """What has grown so far.

    Args:
        saved: Where it is kept, and gone on with.

    Attributes:
        whole: All growths that ended, as one.
    """

    def __init__(self, saved: Checkpoints) -> None:
        self._saved = saved
        self._ended: list[dict[str, Any]] = []
        self._stopped: dict[str, Any] | None = None
        found = saved.read(_STAGE)
        for growth in found[0] if found else ():
            if len(growth["ids"]) == growth["asked"]:
                self._ended.append(growth)
            else:
                self._stopped = growth
        self.whole = Grown(np.zeros(0, np.int64), np.zeros(0))
        for growth in self._ended:
            self.whole = self.whole.then(_read(growth))

    def go_on(self, n: int, grow: Callable[[Grown | None, Save], Grown]) -> None:
        """Grow by `n` more; `grow` gets what of it was there, and saves after each pass."""
        resumed = None
        if self._stopped is not None and self._stopped["asked"] == n:
            resumed = _read(self._stopped)
        more = grow(resumed, lambda so_far: self._save(so_far, n))
        self._ended.append(_plain(more, n))
        self._saved.save(_STAGE, self._ended)
        self._stopped = None
        self.whole = self.whole.then(more)

    def _save(self, so_far: Grown, n: int) -> None:
        self._saved.save(_STAGE, [*self._ended, _plain(so_far, n)])


def _plain(grown: Grown, asked: int) -> dict[str, Any]:
    return {
        "asked": asked,
        "ids": grown.ids.tolist(),
        "scores": grown.scores.tolist(),
        "cost": asdict(grown.cost),
        "pairs": [list(pair) for pair in grown.pairs],
    }


def _read(growth: dict[str, Any]) -> Grown:
    pairs = tuple((int(i), int(j)) for i, j in growth["pairs"])
    ids, scores = np.array(growth["ids"], np.int64), np.array(growth["scores"], np.float64)
    return Grown(ids, scores, Cost(**growth["cost"]), pairs)
