"""The only way to a language model: cached, counted, limited, and honest about what failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pie_fast.errors import PieFastError
from pie_fast.llm.answers import A, InvalidAnswerError, parse
from pie_fast.llm.cache import Answer, AnswerCache, Answers
from pie_fast.llm.endpoint import Endpoint, RefusedError
from pie_fast.llm.gate import Gate
from pie_fast.llm.ledger import Failure, Ledger
from pie_fast.llm.prompts import Message, render
from pie_fast.llm.request import Request, Sampling, content_hash
from pie_fast.llm.retries import Retries
from pie_fast.llm.spending import Budget, CountTokens, Price, Spent, characters_over_4
from pie_fast.llm.together import R, StoppedError, T, together
from pie_fast.progress import Advance


class Chat:
    """A language model behind an OpenAI-compatible endpoint.

    An answer is stored before anybody sees it, so that a run that was stopped goes on for
    nothing. A question that failed is in ``failures`` and is asked again by the next run.

    Args:
        model: Its name at the endpoint.
        cache: Folder of the answers, or another place for them. The address is no part of an
            answer's name: the same model elsewhere is the same model.
        base_url: As ``http://127.0.0.1:8000/v1``; by default ``OPENAI_BASE_URL``, or OpenAI.
        key_variable: The environment variable that holds the key; it is read nowhere else.
        sampling: How answers are drawn.
        retries: How often and when to ask again.
        concurrency: Requests at the same time, at most.
        timeout: Seconds until a request is given up.
        price: To tell costs; None to tell tokens only.
        count_tokens: The model's tokenizer, for estimates; by default characters / 4.
        dry_run: Send nothing: what is not in the cache has no answer and is in ``budget``.
        note: Told of broken files in the cache.

    Raises:
        PieFastError: An address or a number out of range, or no key.
    """

    def __init__(
        self,
        model: str,
        *,
        cache: str | Path | Answers,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        sampling: Sampling | None = None,
        retries: Retries | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        price: Price | None = None,
        count_tokens: CountTokens = characters_over_4,
        dry_run: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        if concurrency < 1:
            raise PieFastError(f"concurrency is {concurrency}, must be at least 1")
        self.model, self.price, self.dry_run = model, price, dry_run
        self._sampling, self._retries = sampling or Sampling(), retries or Retries()
        self._concurrency = concurrency
        self._cache: Answers = (
            AnswerCache(Path(cache), note) if isinstance(cache, str | Path) else cache
        )
        self._ledger, self._gate = Ledger(count_tokens), None
        if not dry_run:
            endpoint = Endpoint(model, base_url, key_variable, timeout, self._retries)
            self._gate = Gate(endpoint, concurrency, self._ledger)
        self._lock, self._flying = threading.Lock(), dict[str, Future[Any]]()
        self._thread = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        if self._gate is not None:
            self._gate.close()

    @property
    def budget(self) -> Budget:
        """Estimate of everything asked so far that was not in the cache."""
        return self._ledger.budget

    @property
    def spent(self) -> Spent:
        """Everything so far; of a request still under way nothing yet."""
        return self._ledger.spent

    @property
    def cost(self) -> float | None:
        """Money spent; None where no price is known."""
        spent = self.spent
        return None if self.price is None else self.price.of(spent.tokens_in, spent.tokens_out)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Questions without an answer, in the order asked."""
        return self._ledger.failures

    def report(self, failure: Failure) -> None:
        """Record that a question was answered and something is missing nevertheless."""
        self._ledger.record([failure])

    def take(self, told: Iterable[Answer], spent: Spent) -> None:
        """Store what another chat was told, and count what that took.

        Whoever asked it to will ask here next: only then does a question count as failed, and to
        find the answer in the cache is not to have spared a request.
        """
        n_told = 0
        for answer in told:
            self._cache.write(*answer)
            n_told += 1
        self._ledger.add(replace(spent, failed=0, reused=spent.reused - n_told))

    def expect(self, requests: Iterable[Request[A]]) -> None:
        """Add to ``budget`` what will be asked in words that are not known yet."""
        for request in requests:
            self._ledger.plan(None, request.messages, request.answer_tokens)

    def each(
        self, work: Callable[[T], R], items: Sequence[T], advance: Advance | None = None
    ) -> list[R]:
        """Do work that asks questions for several items at a time.

        Args:
            work: Called with an item in a thread of its own, as many at once as requests; what it
                asks is stopped where the work for another item fails.
            items: What to do it for.
            advance: Told how many of how many are done.

        Returns:
            What it gave for each, in order.

        Raises:
            BaseException: What was raised first, once requests under way have been answered and
                stored.
        """
        stop, futures = threading.Event(), list[Future[R]]()

        def one(item: T) -> R:
            self._thread.stop = stop
            self.check_going()
            return work(item)

        at_a_time = self._concurrency
        together(one, items, futures, at_a_time=at_a_time, stop=stop, advance=advance)
        return [future.result() for future in futures]

    def check_going(self) -> None:
        """End the work of `each` for one item where that for another has failed.

        Raises:
            StoppedError: It has.
        """
        if self._stop is not None and self._stop.is_set():
            raise StoppedError

    @property
    def _stop(self) -> threading.Event | None:
        """What stops the work of `each` that this thread does; None where it does none."""
        stop: threading.Event | None = getattr(self._thread, "stop", None)
        return stop

    def ask_all(
        self, requests: Sequence[Request[A]], advance: Advance | None = None
    ) -> list[A | None]:
        """Ask questions, several at a time.

        Args:
            requests: What to ask; equal questions are asked once.
            advance: Told how many of how many are done.

        Returns:
            Their answers in order; None where there is none, which is in ``failures``.

        Raises:
            UnusableError: The endpoint answers nothing: no such model or address, a wrong key, or
                too many failures in a row. Answers that came before are in the cache.
            StoppedError: It is part of the work of `each`, which has failed elsewhere.
            KeyboardInterrupt: As it came, once requests under way have been answered and stored.
        """
        stop, futures = self._stop or threading.Event(), list[Future[A | Failure]]()

        def ask(request: Request[A]) -> A | Failure:
            return self._ask(request, stop)

        at_a_time = self._concurrency
        try:
            together(ask, requests, futures, at_a_time=at_a_time, stop=stop, advance=advance)
        finally:
            self._ledger.record(r for r in _results(futures) if isinstance(r, Failure))
        self.check_going()  # else questions that were not sent would look unanswered
        return [None if isinstance(r, Failure) else r for r in _results(futures)]

    def _ask(self, request: Request[A], stop: threading.Event) -> A | Failure:
        """Ask, unless the same question is under way: then wait for its answer."""
        content = request.content(self.model, self._sampling)
        name = content_hash(content)
        with self._lock:
            future = self._flying.get(name)
            mine = future is None
            if future is None:
                future = self._flying[name] = Future()
        if not mine:
            result: A | Failure = future.result()
            if isinstance(result, Failure):
                self._ledger.add(Spent(failed=int(result.attempts > 0)))
                return replace(result, about=request.about)
            self._ledger.add(Spent(reused=1))
            return result
        try:
            result = self._answer(request, content, stop)
            future.set_result(result)
            return result
        except BaseException as error:
            future.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flying[name]

    def _answer(
        self, request: Request[A], content: dict[str, Any], stop: threading.Event
    ) -> A | Failure:
        """From the cache, or from the endpoint and into the cache."""
        stored = self._cache.read(content, request.schema)
        if stored is not None:
            self._ledger.add(Spent(reused=1))
            return stored
        self._ledger.plan(content_hash(content), request.messages, request.answer_tokens)
        if self._gate is None:
            return Failure(request.template, request.about, 0, "dry run")
        messages, attempts, reason = request.messages, 0, ""
        for _ in range(1 + self._retries.invalid):
            try:
                completion = self._gate.complete(messages, self._sampling.parameters(), stop)
            except RefusedError as refused:
                attempts, reason = attempts + refused.attempts, refused.reason
                break
            attempts += completion.attempts
            try:
                answer = parse(completion.text, request.schema)
            except InvalidAnswerError as invalid:
                cut = "cut for its length; " if completion.cut else ""
                reason = f"invalid answer: {cut}{invalid}"
                self._ledger.charge(messages, completion, Spent(rejected=1))
                messages = (*request.messages, *_correction(completion.text, str(invalid)))
            else:
                self._cache.write(content, completion.text, completion.usage)
                self._ledger.charge(messages, completion, Spent(answers=1))
                return answer
        self._ledger.add(Spent(failed=int(attempts > 0)))
        return Failure(request.template, request.about, attempts, reason)


def _results(futures: Sequence[Future[A | Failure]]) -> list[A | Failure]:
    """Of those that came to an end, in order."""
    done = (f for f in futures if f.done() and not f.cancelled() and f.exception() is None)
    return [future.result() for future in done]


def _correction(answer: str, problem: str) -> tuple[Message, ...]:
    """What is appended after an answer that was not as asked."""
    return ({"role": "assistant", "content": answer}, *render("correct.v1", problem=problem))
