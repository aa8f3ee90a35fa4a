"""An engine of workers in this process, which shows what depends on who does what."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any


class _Turns:
    """Items in turn to each worker, a few ahead; everything is pickled as on a cluster."""

    def __init__(self, held: list[Any]) -> None:
        self._held = cycle(held)

    def map(
        self,
        function: Callable[[Any, Any], Any],
        items: Iterable[Any],
        *,
        ahead: int | None = None,
    ) -> Iterator[Any]:
        waiting, n = iter(items), ahead or 4
        while some := list(islice(waiting, n)):
            sent = [(next(self._held), item) for item in some]
            done = [_as_sent(function)(held, _as_sent(item)) for held, item in reversed(sent)]
            yield from map(_as_sent, reversed(done))


@dataclass
class TurnsEngine:
    """Workers in this process that take turns.

    Attributes:
        n_workers: How many.
        made: What they hold, of all contexts.
    """

    n_workers: int = 2
    made: list[Any] = field(default_factory=list)

    @contextmanager
    def workers(self, make: Callable[[], Any]) -> Iterator[_Turns]:
        held = [_as_sent(make)() for _ in range(self.n_workers)]
        self.made += held
        yield _Turns(held)

    def close(self) -> None:
        """Nothing is open."""


def _as_sent(value: Any) -> Any:
    # What a cluster does to all that it sends; nothing here is read from a file.
    return pickle.loads(pickle.dumps(value))
