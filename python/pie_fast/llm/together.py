"""Work of several threads that is stopped together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

from pie_fast.progress import Advance

T = TypeVar("T")
R = TypeVar("R")


class StoppedError(Exception):
    """Something else went wrong, or somebody pressed Ctrl-C; that is what gets told."""


def together(
    work: Callable[[T], R],
    items: Iterable[T],
    futures: list[Future[R]],
    *,
    at_a_time: int,
    stop: threading.Event,
    advance: Advance | None = None,
) -> None:
    """Do work for items, several at a time.

    Args:
        work: Called with an item in another thread.
        items: In the order in which they are begun.
        futures: Gets the future of each; all have ended afterwards, whatever is raised.
        at_a_time: Threads.
        stop: Set as soon as anything is raised, here or in a thread, for those that look at it.
        advance: Told how many of how many are done.

    Raises:
        BaseException: What was raised first; a `StoppedError` only where nothing else was.
    """

    def guarded(item: T) -> R:
        try:
            return work(item)
        except BaseException:
            stop.set()  # before this thread begins with another item
            raise

    with ThreadPoolExecutor(at_a_time) as pool:
        try:
            futures += [pool.submit(guarded, item) for item in items]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if advance is not None:
                    advance(done, len(futures))
        except BaseException as raised:
            stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(raised, StoppedError):
                raise _cause(futures, raised) from None
            raise


def _cause(futures: Sequence[Future[R]], stopped: StoppedError) -> BaseException:
    ended = (future.exception() for future in futures if not future.cancelled())
    return next((e for e in ended if e and not isinstance(e, StoppedError)), stopped)
