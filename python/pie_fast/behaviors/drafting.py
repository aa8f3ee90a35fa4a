"""From a filled template to a :class:`Prompt`: seeded draws, drafts, tokens and roles.

A generator writes *drafts* (text and character spans of roles) and knows nothing of tokens; this
module asks the tokenizer, once, and checks what the generators promise: answers of one token that
leave the prompt's own tokens alone, and counterfactuals of equal length.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Protocol, Self, TypeVar

from pie_fast.behaviors.behavior import Prompt
from pie_fast.errors import BehaviorError

T = TypeVar("T")

#: tells whether a word, after a space, is one token
IsSingle = Callable[[str], bool]


class Draws:
    """Seeded draws whose bytes depend on nothing but the seed.

    Built on ``random.Random.random()`` alone: it is the one method whose sequence Python
    promises to keep between versions.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def index(self, n: int) -> int:
        """An integer in ``[0, n)``."""
        return int(self._random() * n)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.index(len(items))]

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """``k`` distinct items, in random order."""
        pool = list(items)
        for i in range(k):
            j = i + self.index(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:k]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt before tokenisation.

    Attributes:
        text: The prompt.
        spans: ``(start, end, role)`` in characters of ``text``.
        answer: What follows the prompt, with its leading space if it has one.
        foil: The wrong answer it is compared with, likewise.
        counterfactual: The prompt that differs where it matters.
    """

    text: str
    spans: tuple[tuple[int, int, str], ...]
    answer: str
    foil: str
    counterfactual: str


class Task(Protocol):
    """A generator of drafts. Implementations are frozen dataclasses of their pools."""

    @property
    def metric(self) -> str:
        """The metric the task is measured by."""

    @property
    def counterfactual(self) -> str:
        """The kind of counterfactual it draws."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of counterfactual it can draw."""

    def fitted(self, tokenizer: Any) -> Self:
        """The same task with only the words that suit the tokenizer.

        Raises:
            BehaviorError: Too few words are left.
        """

    def draft(self, draws: Draws, index: int) -> Draft:
        """Draw one prompt; what is to be balanced over prompts follows ``index``."""


def fill(
    template: str, values: Mapping[str, str], roles: Mapping[str, str] | None = None
) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    """Fill ``{field}`` places and remember where each went.

    Args:
        template: Text with named fields.
        values: What each field becomes.
        roles: Role of a field where it differs from the field's name; "" gives it none.

    Returns:
        The text, and ``(start, end, role)`` character spans.
    """
    text, spans = "", []
    for literal, name, _, _ in Formatter().parse(template):
        text += literal
        if name is None:
            continue
        role = (roles or {}).get(name, name)
        if role:
            spans.append((len(text), len(text) + len(values[name]), role))
        text += values[name]
    return text, tuple(spans)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, with the special tokens the tokenizer puts first."""
    return [int(i) for i in tokenizer(text)["input_ids"]]


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse a tokenizer that ends texts with a special token.

    Raises:
        BehaviorError: It puts a special token last, where the answer should follow.
    """
    text = "a b"
    ids = encode(tokenizer, text)
    bare = [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if ids[-len(bare) :] != bare:
        raise BehaviorError(
            f"the tokenizer ends {text!r} with a special token (id {ids[-1]}), but the answer is "
            "read at the prompt's last token; hand in a tokenizer that adds none at the end"
        )


def continuation(tokenizer: Any, text: str, answer: str) -> list[int]:
    """Token ids that ``answer`` adds to ``text``; empty if it changes the text's own tokens."""
    before, both = encode(tokenizer, text), encode(tokenizer, text + answer)
    return both[len(before) :] if both[: len(before)] == before else []


def single_words(tokenizer: Any, words: Sequence[str], need: int, what: str) -> tuple[str, ...]:
    """The words that are one token after a space.

    Raises:
        BehaviorError: Fewer than ``need`` are left.
    """
    # asked after a letter, because some tokenizers treat the start of a text differently
    kept = tuple(word for word in words if len(continuation(tokenizer, "a", f" {word}")) == 1)
    if len(kept) < need:
        raise BehaviorError(
            f"only {len(kept)} of {len(words)} {what} are single tokens (with a leading space) "
            f"for this tokenizer; at least {need} are needed"
        )
    return kept


def realise(tokenizer: Any, draft: Draft) -> Prompt:
    """Tokenise a draft.

    Raises:
        BehaviorError: The answer or foil is not one token, or the counterfactual has another
            length than the prompt.
    """
    tokens = encode(tokenizer, draft.text)
    ids = {}
    for field, word in (("answer", draft.answer), ("foil", draft.foil)):
        added = continuation(tokenizer, draft.text, word)
        if len(added) != 1:
            raise BehaviorError(
                f"{field} {word!r} adds {len(added)} tokens to {draft.text!r}; it must add 1"
            )
        ids[field] = added[0]
    counterfactual = encode(tokenizer, draft.counterfactual)
    if len(counterfactual) != len(tokens):
        raise BehaviorError(
            f"the counterfactual {draft.counterfactual!r} has {len(counterfactual)} tokens, "
            f"{draft.text!r} has {len(tokens)}; the two need equal lengths"
        )
    return Prompt(
        tokens=tuple(tokens),
        answer=ids["answer"],
        foil=ids["foil"],
        counterfactual=tuple(counterfactual),
        text=draft.text,
        roles=_roles(tokenizer, draft, len(tokens)),
    )


def _roles(tokenizer: Any, draft: Draft, n_tokens: int) -> tuple[str | None, ...]:
    """The role of each token; the last token is END unless the template says otherwise."""
    roles: list[str | None] = [None] * n_tokens
    if getattr(tokenizer, "is_fast", False):
        offsets = tokenizer(draft.text, return_offsets_mapping=True)["offset_mapping"]
        for i, (start, end) in enumerate(offsets):
            while start < end and draft.text[start].isspace():
                start += 1  # a token's leading space belongs to no role
            for first, last, role in draft.spans:
                if start < last and first < end:
                    roles[i] = role
    else:  # no offsets: count the tokens before and up to the end of each role
        for first, last, role in draft.spans:
            before = len(encode(tokenizer, draft.text[:first].removesuffix(" ")))
            upto = min(len(encode(tokenizer, draft.text[:last])), n_tokens)
            roles[before:upto] = [role] * (upto - before)
    roles[-1] = roles[-1] or "END"
    return tuple(roles)
