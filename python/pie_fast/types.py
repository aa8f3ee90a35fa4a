"""The few words everything shares. Standard library and numpy only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pie_fast import display
from pie_fast.errors import PieFastError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, order=True, slots=True)
class FeatureId:
    """A CLT dictionary element, shown as ``L5:42``.

    ``layer`` is the layer whose residual stream the feature reads; the global id (the order of
    pools and the key of feature dumps) is ``layer * n_features + index``.
    """

    layer: int
    index: int

    def __str__(self) -> str:
        return f"L{self.layer}:{self.index}"

    def to_global(self, n_features: int) -> int:
        """``layer * n_features + index``."""
        return self.layer * n_features + self.index

    @classmethod
    def from_global(cls, global_id: int, n_features: int) -> FeatureId:
        """The inverse of :meth:`to_global`."""
        layer, index = divmod(int(global_id), n_features)
        return cls(layer, index)

    @classmethod
    def parse(cls, text: str) -> FeatureId:
        """Read ``L5:42``.

        Raises:
            PieFastError: The text has another form.
        """
        match = re.fullmatch(r"L(\d+):(\d+)", text)
        if match is None:
            raise PieFastError(f"{text!r} is not a feature; features look like L5:42")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, eq=False)
class Selection:
    """What a greedy selection chose, in the order it chose.

    Attributes:
        ids: ``[k]`` int64, positions in the scores handed in.
        gains: ``[k]`` float64, the score plus bonus of each at the step that took it.
    """

    ids: NDArray[np.int64]
    gains: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def _repr_html_(self) -> str:
        return display.selection(self)


@dataclass(frozen=True, slots=True)
class SelectionStep:
    """Why one candidate was taken.

    Attributes:
        id: The one taken, a position in the scores.
        score: Its score.
        bonus: What its synergies with those taken before added.
        gain: What it was taken for, ``score + bonus``.
        runner_up: The second best at this step, or None when nothing else remained.
        runner_up_value: What the runner-up would have been taken for.
    """

    id: int
    score: float
    bonus: float
    gain: float
    runner_up: int | None
    runner_up_value: float | None


@dataclass(frozen=True, eq=False)
class Swapped:
    """A selection after exchanges that raised its objective.

    Attributes:
        ids: ``[k]`` int64, each new one in the place of the one it replaced.
        before: The objective at the start.
        objective: The objective at the end.
        swaps: ``(out, in)`` of each exchange, in order.
    """

    ids: NDArray[np.int64]
    before: float
    objective: float
    swaps: tuple[tuple[int, int], ...]
