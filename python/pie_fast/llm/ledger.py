"""What a chat has cost, will cost, and could not find out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pie_fast.llm.endpoint import Completion
from pie_fast.llm.prompts import Message
from pie_fast.llm.spending import Budget, CountTokens, Spent, tokens_of


@dataclass(frozen=True, slots=True)
class Failure:
    """A question without an answer.

    Attributes:
        template: Which prompt.
        about: What it was about.
        attempts: Requests sent for it.
        reason: The last reason, in one line.
    """

    template: str
    about: str
    attempts: int
    reason: str

    def __str__(self) -> str:
        return f"{self.template} of {self.about}: {self.reason} ({self.attempts} requests)"


class Ledger:
    """Counts of many threads.

    Args:
        count_tokens: For what no server counts.

    Attributes:
        budget: Estimate of all that was asked and not in the cache.
        spent: All that was sent and answered.
        failures: In the order asked.
    """

    def __init__(self, count_tokens: CountTokens) -> None:
        self._count_tokens, self._lock = count_tokens, threading.Lock()
        self._planned: set[str | None] = set()
        self.budget, self.spent = Budget(), Spent()
        self.failures: tuple[Failure, ...] = ()

    def plan(self, name: str | None, messages: Sequence[Message], answer_tokens: int) -> None:
        """A question that the cache has no answer to; counted once by its name where it has one."""
        tokens = tokens_of(messages, self._count_tokens)
        with self._lock:
            if name is None or name not in self._planned:
                self._planned.add(name)
                self.budget += Budget(1, tokens, answer_tokens)

    def charge(self, messages: Sequence[Message], completion: Completion, what: Spent) -> None:
        """An answer, good or bad: its tokens as the server counts them, else estimated."""
        tokens_in, tokens_out = completion.tokens_in, completion.tokens_out
        if tokens_in is None or tokens_out is None:
            tokens_in = tokens_of(messages, self._count_tokens)
            tokens_out = self._count_tokens(completion.text)
            what += Spent(uncounted=1)
        self.add(what + Spent(tokens_in=tokens_in, tokens_out=tokens_out))

    def add(self, what: Spent) -> None:
        """Anything else."""
        with self._lock:
            self.spent += what

    def record(self, failures: Iterable[Failure]) -> None:
        """Questions without an answer; one that was never sent has not failed."""
        with self._lock:
            self.failures += tuple(failure for failure in failures if failure.attempts)
