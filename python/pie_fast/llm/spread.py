"""Questions that the workers of an engine ask; this process alone keeps the answers.

In rounds. A dry run finds the questions that the cache has no answer to, and stops where what
comes next depends on them; workers ask these, each with its own connections; their answers are
stored here, and the next dry run gets further: labels first, then what is asked about labels, then
the story of all of them. When a dry run finds nothing that was not asked already, the run itself
follows and finds its answers in the cache. What no worker got an answer to it asks once more.

One process with many connections already asks as fast as an endpoint answers; workers help where
each host has a limit of its own, or an endpoint of its own behind the same address.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from pie_fast.engine import Engine
from pie_fast.llm.answers import A
from pie_fast.llm.cache import Answer, Told
from pie_fast.llm.client import Chat
from pie_fast.llm.endpoint import UnusableError
from pie_fast.llm.ledger import Failure
from pie_fast.llm.request import Request, content_hash
from pie_fast.llm.spending import Spent
from pie_fast.llm.together import R, T
from pie_fast.progress import Advance

#: questions of one item of a worker, for each that it has under way at once
_A_TURN = 4


def ask_by_workers(
    run: Callable[[Chat], object],
    chat: Chat,
    engine: Engine,
    *,
    cache: Path,
    concurrency: int,
    **options: Any,
) -> None:
    """Let workers ask whatever a run is going to ask; their answers are in the cache afterwards.

    Args:
        run: Asks, whatever chat it is given; called for each round.
        chat: Stores the answers and counts what they took.
        engine: Where the workers are. They read the key from their own environment.
        cache: The chat's folder.
        concurrency: Requests at the same time, at most, of each worker.
        options: Of `Chat`, for all of them.

    Raises:
        UnusableError: The endpoint answers nothing; what it answered before is stored.
        WorkerError: Workers could not be kept alive.
    """
    tried: set[str] = set()
    with engine.workers(partial(_Asker, concurrency=concurrency, **options)) as workers:
        while found := _round(run, tried, cache=cache, concurrency=concurrency, **options):
            tried |= found.keys()
            order = sorted(found, key=lambda name: (found[name].template, found[name].about, name))
            size = _A_TURN * concurrency
            parts = [order[first : first + size] for first in range(0, len(order), size)]
            questions = ([found[name] for name in part] for part in parts)
            for part in workers.map(_Asker.ask, questions):
                chat.take(part.told, part.spent)
                if part.unusable is not None:
                    raise part.unusable


def _round(
    run: Callable[[Chat], object], tried: Collection[str], **options: Any
) -> Mapping[str, Request[Any]]:
    """Questions that can be asked now, by name; none where all were tried."""
    with _Unanswered(tried, **options) as found:
        try:
            run(found)
        except _RoundError:
            return found.requests
    return {}


@dataclass(frozen=True)
class _Part:
    """What a worker was told.

    Attributes:
        told: The answers.
        spent: What they took.
        unusable: Why it stopped asking.
    """

    told: tuple[Answer, ...]
    spent: Spent
    unusable: UnusableError | None


class _Asker:
    """What a worker holds: a chat that stores nothing.

    Args:
        options: As of `Chat`.
    """

    def __init__(self, **options: Any) -> None:
        self._told = Told()
        self._chat = Chat(cache=self._told, **options)

    def ask(self, requests: Sequence[Request[Any]]) -> _Part:
        """Questions without an answer are missing in what was told."""
        before, unusable = self._chat.spent, None
        self._told.answers.clear()
        try:
            self._chat.ask_all(requests)
        except UnusableError as error:
            unusable = error
        return _Part(tuple(self._told.answers), self._chat.spent - before, unusable)


class _RoundError(Exception):
    """There are questions to be asked before anything else can be."""


class _Unanswered(Chat):
    """A dry run that collects what the cache has no answer to, and stops when that is known.

    Args:
        tried: Names of questions that count as asked.
        options: As of `Chat`.

    Attributes:
        requests: Name of the question -> it.
    """

    def __init__(self, tried: Collection[str], **options: Any) -> None:
        super().__init__(dry_run=True, **options)
        self.requests: dict[str, Request[Any]] = {}
        self._tried = tried

    def each(
        self, work: Callable[[T], R], items: Sequence[T], advance: Advance | None = None
    ) -> list[R]:
        """As `Chat.each`.

        Raises:
            _RoundError: Some of it has no answer yet.
        """
        found = super().each(work, items, advance)
        self._check()
        return found

    def ask_all(
        self, requests: Sequence[Request[A]], advance: Advance | None = None
    ) -> list[A | None]:
        """As `Chat.ask_all`.

        Raises:
            _RoundError: Some of them have no answer yet.
        """
        found = super().ask_all(requests, advance)
        if self._stop is None:  # else it is part of `each`, which looks at the end
            self._check()
        return found

    def _answer(self, request: Request[A], content: dict[str, Any], stop: Event) -> A | Failure:
        found = super()._answer(request, content, stop)
        name = content_hash(content)
        if isinstance(found, Failure) and name not in self._tried:
            self.requests[name] = request
        return found

    def _check(self) -> None:
        if self.requests:
            raise _RoundError
