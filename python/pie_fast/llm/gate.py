"""Who may go to the endpoint, and when.

So many questions at once; one alone while the endpoint has never answered, so that a wrong address
costs one request; none once it has failed again and again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pie_fast.llm.endpoint import Completion, Endpoint, RefusedError, UnusableError
from pie_fast.llm.ledger import Ledger
from pie_fast.llm.prompts import Message
from pie_fast.llm.spending import Spent


class Gate:
    """An endpoint for many threads.

    Args:
        endpoint: Where to.
        concurrency: Questions at the same time, at most.
        ledger: Told of every request.
    """

    def __init__(self, endpoint: Endpoint, concurrency: int, ledger: Ledger) -> None:
        self._endpoint, self._ledger = endpoint, ledger
        self._slots = threading.BoundedSemaphore(concurrency)
        self._first, self._lock = threading.Lock(), threading.Lock()
        self._in_a_row = 0

    def close(self) -> None:
        """Let go of the connections."""
        self._endpoint.close()

    def complete(
        self, messages: Sequence[Message], parameters: Mapping[str, Any], stop: threading.Event
    ) -> Completion:
        """As `Endpoint.complete`, when it is the turn of it; sets `stop` where that is of no use.

        Raises:
            UnusableError: The endpoint will never answer, or too many questions in a row failed.
            RefusedError: This question has no answer.
        """
        if not self._endpoint.reached:
            with self._first:
                if not self._endpoint.reached:
                    return self._counted(messages, parameters, stop)
        return self._counted(messages, parameters, stop)

    def _counted(
        self, messages: Sequence[Message], parameters: Mapping[str, Any], stop: threading.Event
    ) -> Completion:
        with self._slots:
            if stop.is_set():
                raise RefusedError("stopped", 0)
            try:
                completion = self._endpoint.complete(messages, parameters, stop)
            except RefusedError as refused:
                self._ledger.add(Spent(requests=refused.attempts))
                if not stop.is_set():
                    self._give_up_after(refused, stop)
                raise
            except UnusableError as unusable:
                self._ledger.add(Spent(requests=unusable.attempts))
                stop.set()
                raise
        self._ledger.add(Spent(requests=completion.attempts))
        with self._lock:
            self._in_a_row = 0
        return completion

    def _give_up_after(self, refused: RefusedError, stop: threading.Event) -> None:
        with self._lock:
            self._in_a_row += 1
            many = self._in_a_row
        if many >= self._endpoint.retries.in_a_row:
            stop.set()
            raise UnusableError(f"{many} questions in a row failed, the last by: {refused.reason}")
