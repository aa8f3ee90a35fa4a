"""A language model that rates texts by a description, and one that writes texts to it.

FADE's two questions (arXiv 2502.16994): ratings 0, 1, 2 of up to 15 texts a request, and texts
that express a concept.
"""

from __future__ import annotations

from collections.abc import Sequence

from pie_fast.errors import PieFastError
from pie_fast.llm.answers import Ratings, Texts
from pie_fast.llm.client import Chat
from pie_fast.llm.judging import BATCH, judge, question
from pie_fast.llm.ledger import Failure
from pie_fast.llm.prompts import render
from pie_fast.llm.request import Request

_RATE, _WRITE = "rate.v1", "concept.v1"

#: stands for a text that is not there yet, to tell what asking about it will cost: 30 words
_SOME_TEXT = " word" * 30


class LlmRater:
    """Rates texts; a `Rater` of the quality measures.

    Args:
        chat: The language model.
        batch: Texts in a request, 1 to 15.
        about: What is described, for failures; the description where it is empty.
    """

    def __init__(self, chat: Chat, *, batch: int = BATCH, about: str = "") -> None:
        self.chat, self._batch, self._about = chat, batch, about

    def rate(self, description: str, texts: Sequence[str]) -> list[int | None]:
        """How far each text expresses `description`.

        Args:
            description: What they should express.
            texts: The texts themselves, in any number; equal ones are rated once.

        Returns:
            0 (not), 1 (partly) or 2 (plainly) in order; None where it could not be rated, which
            the chat's ``failures`` tell.

        Raises:
            PieFastError: Something among `texts` is no text.
            UnusableError: The endpoint answers nothing.
        """
        check_texts(texts)
        distinct = list(dict.fromkeys(texts))
        ratings = judge(
            self.chat,
            _RATE,
            Ratings,
            description,
            distinct,
            about=self._about or description,
            batch=self._batch,
        )
        rated = dict(zip(distinct, ratings, strict=True))
        return [rated[text] for text in texts]

    def expect(self, description: str, n: int) -> None:
        """Add to the chat's ``budget`` the rating of `n` texts that are not there yet."""
        sizes = [min(self._batch, n - start) for start in range(0, n, self._batch)]
        texts = [[_SOME_TEXT] * size for size in sizes]
        self.chat.expect(
            question(_RATE, Ratings, description, some, self._about or description)
            for some in texts
        )


class LlmWriter:
    """Writes texts; a `Writer` of the quality measures.

    Args:
        chat: The language model.
        part: Texts in a request, at most.
        rounds: How often it is asked for those that are still missing.
        about: What is described, for failures; the description where it is empty.

    Raises:
        PieFastError: A number below 1.
    """

    def __init__(self, chat: Chat, *, part: int = 10, rounds: int = 3, about: str = "") -> None:
        for name, count in (("part", part), ("rounds", rounds)):
            if count < 1:
                raise PieFastError(f"{name} is {count}, must be at least 1")
        self.chat, self._part, self._rounds, self._about = chat, part, rounds, about

    def write(self, description: str, n: int) -> list[str]:
        """Texts that express `description`, no two equal.

        In a dry run the chat's ``budget`` gets all rounds: it is not known how many will be
        needed.

        Returns:
            `n` of them, or fewer, which the chat's ``failures`` tell.

        Raises:
            PieFastError: `n` is below 0.
            UnusableError: The endpoint answers nothing.
        """
        if n < 0:
            raise PieFastError(f"n is {n}, must be at least 0")
        written: list[str] = []
        rounds = 0
        while len(written) < n and rounds < self._rounds:
            rounds += 1
            answers = self.chat.ask_all(self._requests(description, n - len(written), written))
            new = [text for answer in answers if answer is not None for text in answer.texts]
            written = list(dict.fromkeys([*written, *new]))[:n]
            if not new:
                break
        missing = n - len(written)
        if missing and self.chat.dry_run:
            there = [*written, *[_SOME_TEXT] * missing]
            for _ in range(rounds, self._rounds):
                self.chat.expect(self._requests(description, missing, there))
        elif missing:
            reason = f"{missing} of {n} texts are missing"
            self.chat.report(Failure(_WRITE, self._about or description, self._rounds, reason))
        return written

    def _requests(self, description: str, n: int, written: list[str]) -> list[Request[Texts]]:
        """`n` texts in parts that can be asked at once; equal parts would get equal answers."""
        parts = -(-n // self._part)
        sizes = [n // parts + (part < n % parts) for part in range(parts)]
        return [
            Request(
                template=_WRITE,
                about=self._about or description,
                messages=render(
                    _WRITE,
                    description=description,
                    n=size,
                    part=part,
                    parts=parts,
                    written=written,
                ),
                schema=Texts,
                answer_tokens=30 * size,
            )
            for part, size in enumerate(sizes, 1)
        ]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what would be rated in place of a text: a character of it, a pair, a key.

    Raises:
        PieFastError: `texts` is one text or a mapping, or has something else than texts.
    """
    if not isinstance(texts, Sequence) or isinstance(texts, str):
        raise PieFastError(f"texts is a {type(texts).__name__}, must be a list of texts")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise PieFastError(f"texts[{i}] is a {type(text).__name__}, must be a text")
