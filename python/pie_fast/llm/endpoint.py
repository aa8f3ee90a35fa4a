"""One question over HTTP, tried again while that can help; where the key lives, and stays.

Attempts are counted here and nowhere else: the retries of the `openai` client are off. The key is
read from the environment, and whatever a server says is searched for it before anything else
sees the text. Exceptions of the client hold the request, so none of them is chained to ours.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai
import tenacity
from pydantic import BaseModel, Field, ValidationError

from pie_fast.errors import PieFastError
from pie_fast.llm.key import Key, host_of
from pie_fast.llm.prompts import Message
from pie_fast.llm.retries import Retries, seconds_of

_OFFICIAL = "https://api.openai.com/v1"
#: the server is busy, or was; everything from 500 on is too
_PASSING = (408, 409, 429)
#: key, payment, permission, address or model: before the first answer, no request will do better
_USELESS = (401, 402, 403, 404)


class UnusableError(PieFastError):
    """The endpoint answers no question at all.

    Attributes:
        attempts: Requests sent until that was clear.
    """

    attempts = 0


class RefusedError(Exception):
    """One question got no answer.

    Attributes:
        reason: Why, in one line.
        attempts: Requests sent for it.
    """

    def __init__(self, reason: str, attempts: int) -> None:
        super().__init__(reason, attempts)
        self.reason, self.attempts = reason, attempts


@dataclass(frozen=True, slots=True)
class Completion:
    """What the endpoint said.

    Attributes:
        text: The message.
        cut: It ends for its length.
        tokens_in: As the server counted; None where it did not.
        tokens_out: The same.
        attempts: Requests sent for it.
    """

    text: str
    cut: bool
    tokens_in: int | None
    tokens_out: int | None
    attempts: int

    @property
    def usage(self) -> dict[str, int | None]:
        """The tokens that the server counted."""
        return {"tokens_in": self.tokens_in, "tokens_out": self.tokens_out}


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Reply(BaseModel):
    """What is needed of a chat completion; checked, as a server can say anything."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class Endpoint:
    """An OpenAI-compatible server.

    Args:
        model: Its name there.
        base_url: As ``http://127.0.0.1:8000/v1``; by default ``OPENAI_BASE_URL``, or OpenAI.
        key_variable: The environment variable that holds the key.
        timeout: Seconds until a request is given up.
        retries: How often and when to ask again.

    Attributes:
        reached: It has said something, an error at least.

    Raises:
        PieFastError: An address that is none or holds credentials, a time-out of 0, or no key; a
            server on this machine needs none.
    """

    def __init__(
        self, model: str, base_url: str | None, key_variable: str, timeout: float, retries: Retries
    ) -> None:
        if not timeout > 0:
            raise PieFastError(f"timeout is {timeout} s, must be above 0")
        self.model, self.retries = model, retries
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or _OFFICIAL
        self._key = Key(key_variable, host_of(self.base_url))
        self._client = self._key.client(self.base_url, timeout)
        self.reached = self._answered = False

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def complete(
        self, messages: Sequence[Message], parameters: Mapping[str, Any], stop: threading.Event
    ) -> Completion:
        """The answer to messages.

        Args:
            messages: What is asked.
            parameters: Further fields of the request.
            stop: Once it is set, nothing more is sent.

        Raises:
            UnusableError: The endpoint will never answer, whatever is asked.
            RefusedError: This question has no answer, after all attempts.
        """
        body = {"model": self.model, "messages": list(messages), **parameters}
        attempts = 0

        def once() -> _Reply:
            nonlocal attempts
            if stop.is_set():  # while it waited
                raise RefusedError("stopped", attempts)
            attempts += 1
            return self._once(body)

        def enough(state: tenacity.RetryCallState) -> bool:
            return attempts >= self.retries.attempts or (
                _asked_to_wait(_error(state)) > self.retries.patience
            )

        retrying = tenacity.Retrying(
            stop=enough,
            wait=self._wait,
            retry=tenacity.retry_if_exception(self._may_pass),
            sleep=tenacity.nap.sleep_using_event(stop),
            reraise=True,
        )
        try:
            reply = retrying(once)
        except (openai.OpenAIError, ValidationError) as error:
            told = self._told(error, attempts)
        else:
            self._answered = True
            return _completion(reply, attempts)
        raise told  # outside of `except`: nothing is chained to it

    def _once(self, body: dict[str, Any]) -> _Reply:
        create: Any = self._client.chat.completions.with_raw_response.create  # any field may go in
        try:
            content = create(**body).content
        except openai.APIStatusError:
            self.reached = True
            raise
        self.reached = True
        text = self._key.hidden(content.decode(errors="replace"))
        return _Reply.model_validate_json(text)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        first, longest = self.retries.first, self.retries.longest
        doubling = tenacity.wait_exponential(multiplier=first, max=longest)
        backing_off = doubling + tenacity.wait_random(0, first)
        return max(backing_off(state), _asked_to_wait(_error(state)))

    def _may_pass(self, error: BaseException) -> bool:
        if isinstance(error, openai.APIStatusError):
            return error.status_code in _PASSING or error.status_code >= 500
        return not self._nobody_there(error) and isinstance(
            error, openai.APIConnectionError | ValidationError
        )

    def _nobody_there(self, error: BaseException) -> bool:
        """No connection, and there never was one: the name of the cause is httpx's."""
        return not self.reached and type(error.__cause__).__name__ == "ConnectError"

    def _told(self, error: Exception, attempts: int) -> Exception:
        """The error of the client as ours, in words without the key."""
        if isinstance(error, ValidationError):
            reason = f"the server's answer is no chat completion: {error.errors()[0]['msg']}"
        elif isinstance(error, openai.APIStatusError):
            seconds = _asked_to_wait(error)
            wait = f", asks to wait {seconds:.0f} s" if seconds else ""
            reason = f"status {error.status_code}{wait}: {error.message}"
        else:
            cause = f": {error.__cause__}" if error.__cause__ else ""
            reason = f"{str(error).rstrip('.')}{cause}"
        reason = " ".join(self._key.hidden(reason).split())[:300]
        useless = isinstance(error, openai.APIStatusError) and error.status_code in _USELESS
        if (useless and not self._answered) or self._nobody_there(error):
            unusable = UnusableError(f"{self.base_url}, model {self.model!r}: {reason}")
            unusable.attempts = attempts
            return unusable
        return RefusedError(reason, attempts)


def _completion(reply: _Reply, attempts: int) -> Completion:
    choice, usage = reply.choices[0], reply.usage
    return Completion(
        text=choice.message.content or "",
        cut=choice.finish_reason == "length",
        tokens_in=None if usage is None else usage.prompt_tokens,
        tokens_out=None if usage is None else usage.completion_tokens,
        attempts=attempts,
    )


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _asked_to_wait(error: BaseException | None) -> float:
    """Seconds of the answer's ``Retry-After``; 0 where it has none."""
    if not isinstance(error, openai.APIStatusError):
        return 0.0
    return seconds_of(error.response.headers.get("retry-after", ""))
