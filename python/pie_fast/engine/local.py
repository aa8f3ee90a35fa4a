"""This process as the one worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic

from pie_fast.engine.base import Item, Result, T, Workers


class LocalEngine:
    """Everything runs here, one item after the other, each when its result is asked for."""

    n_workers = 1

    @contextmanager
    def workers(self, make: Callable[[], T]) -> Iterator[Workers[T]]:
        """See `Engine`."""
        yield _Here(make)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class _Here(Generic[T]):
    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._held: list[T] = []

    def map(
        self,
        function: Callable[[T, Item], Result],
        items: Iterable[Item],
        *,
        ahead: int | None = None,
    ) -> Iterator[Result]:
        for item in items:
            if not self._held:
                self._held.append(self._make())
            yield function(self._held[0], item)
