"""What a language model will cost and has cost, in requests, tokens and money."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Self

from pie_fast.errors import PieFastError
from pie_fast.llm.prompts import Message

#: tokens of a text
CountTokens = Callable[[str], int]


def characters_over_4(text: str) -> int:
    """Tokens of a text without its tokenizer: a quarter of its characters, rounded up."""
    return math.ceil(len(text) / 4)


def tokens_of(messages: Iterable[Message], count: CountTokens = characters_over_4) -> int:
    """Tokens of messages; what an endpoint writes around them is not known."""
    return sum(count(message["content"]) for message in messages)


@dataclass(frozen=True, slots=True)
class Price:
    """What a provider takes, in any currency.

    Attributes:
        input: For a million tokens sent.
        output: For a million tokens answered.

    Raises:
        PieFastError: One is below 0, or no number.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            price = getattr(self, name)
            if not (math.isfinite(price) and price >= 0):
                raise PieFastError(f"price of {name} is {price}, must be finite and at least 0")

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """The price of so many tokens."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


class _Sum:
    """Dataclasses that add and subtract field by field."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        mine = (getattr(self, f.name) + getattr(other, f.name) for f in fields(self))  # type: ignore[arg-type]
        return type(self)(*mine)

    def __sub__(self, other: Self) -> Self:
        mine = (getattr(self, f.name) - getattr(other, f.name) for f in fields(self))  # type: ignore[arg-type]
        return type(self)(*mine)


@dataclass(frozen=True, slots=True)
class Budget(_Sum):
    """What requests will take, estimated before they are sent; none of them is in the cache.

    Attributes:
        requests: How many, if each is answered well at once.
        tokens_in: A quarter of the characters sent, unless a tokenizer counted them.
        tokens_out: What such answers usually take; thinking is not part of it.
    """

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def told(self, price: Price | None = None) -> str:
        """One line for people."""
        cost = "" if price is None else f", cost {price.of(self.tokens_in, self.tokens_out):.4g}"
        return (
            f"{self.requests} requests, about {self.tokens_in} tokens in "
            f"and {self.tokens_out} out{cost}"
        )


@dataclass(frozen=True, slots=True)
class Spent(_Sum):
    """What was sent and answered.

    Attributes:
        requests: Sent, those that failed included.
        answers: Accepted.
        rejected: Answered, but not as asked: paid too.
        reused: Needed no request: in the cache, or asked by another at the same time.
        failed: Questions without an accepted answer.
        tokens_in: As the server counted them in its ``usage``.
        tokens_out: The same.
        uncounted: Answers whose server told no usage; their tokens are estimates as in `Budget`.
    """

    requests: int = 0
    answers: int = 0
    rejected: int = 0
    reused: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0

    def told(self, price: Price | None = None) -> str:
        """One line for people."""
        cost = "" if price is None else f", cost {price.of(self.tokens_in, self.tokens_out):.4g}"
        estimated = f" ({self.uncounted} answers estimated)" if self.uncounted else ""
        return (
            f"{self.requests} requests sent, {self.answers} answers, {self.rejected} rejected, "
            f"{self.reused} from the cache, {self.failed} failed, {self.tokens_in} tokens in "
            f"and {self.tokens_out} out{estimated}{cost}"
        )
