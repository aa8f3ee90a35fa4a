"""What an engine is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol[T_co]):
    """Workers that hold the same kind of object each."""

    def map(
        self,
        function: Callable[[T_co, Item], Result],
        items: Iterable[Item],
        *,
        ahead: int | None = None,
    ) -> Iterator[Result]:
        """`function(held, item)` of each item, in the order of the items.

        Args:
            function: Of a module, or a `functools.partial` of one. It may run twice for an item
                whose worker died, so it must change nothing but what it returns.
            items: Taken as they are needed.
            ahead: Results that are computed or wait at once; two a worker by default.

        Raises:
            WorkerError: Workers died, or hung, on an item as often as is tried.
            Exception: What `function` raises, unchanged.
        """
        ...


class Engine(Protocol):
    """Where workers run."""

    @property
    def n_workers(self) -> int:
        """How many there are."""
        ...

    def workers(self, make: Callable[[], T]) -> AbstractContextManager[Workers[T]]:
        """Workers that hold what `make` gives, each its own; it runs before a worker's first item.

        `make` is a function of a module, or a `functools.partial` of one.
        """
        ...

    def close(self) -> None:
        """Let go of what the engine started."""
        ...
