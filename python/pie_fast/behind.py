"""Work behind the back of the main thread: one call at a time, in the order given."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Behind:
    """A thread for what need not be waited for (a context manager).

    One call waits or runs at a time; the next one is taken when it is done, so that no more than
    one result is held in memory. An error of a call comes out of the next one or of the end. What
    stops the main thread, Ctrl-C too, comes out when the call that is running is done.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pie-fast-behind")
        self._running: Future[None] | None = None

    def call(self, work: Callable[..., None], *args: Any) -> None:
        """Wait for the call before, then start this one.

        Raises:
            BaseException: What the call before raised; this one is not started.
        """
        self.wait()
        self._running = self._thread.submit(work, *args)

    def wait(self) -> None:
        """Wait until nothing runs.

        Raises:
            BaseException: What the last call raised.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown(wait=True)
