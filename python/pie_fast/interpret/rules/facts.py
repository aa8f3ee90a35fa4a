"""What is known of each position of a corpus: the words that rules are made of.

A family is a column that gives every position one value, or none: its token, the token before it,
its role, and so on. A rule says "fires where the value of this family is one of these". Facts are
computed once for a corpus and serve every feature; :meth:`Facts.with_promoted` adds the two
families that are of one feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pie_fast.interpret.contexts import Bools, Corpus, Ints
from pie_fast.interpret.vocabulary import Vocabulary

#: a value of a family: a token id, two of them, a position, a role or a class; True for yes-no
#: families
Value = int | str | bool | tuple[int, int]

#: families in the order in which equally good rules are preferred
FAMILIES = (
    "role",
    "token",
    "repeat",
    "repeated_pair",
    "class",
    "previous_token",
    "previous_role",
    "previous_pair",
    "after_repeat",
    "last",
    "position",
)

#: and after these, one for each role: the token that played it earlier in the prompt
EARLIER = "earlier "

#: and those of one feature: this token, or the next one, is among those that it promotes most
PROMOTED = ("promoted", "next_promoted")


def is_of_tokens(family: str) -> bool:
    """Whether the values of a family are token ids, or pairs of them."""
    named = ("token", "previous_token", "previous_pair", "due")
    return family in named or family.startswith(EARLIER)


@dataclass(frozen=True, eq=False)
class Family:
    """One fact about every position.

    Attributes:
        codes: ``[n_tokens]`` int64, index into ``values``, -1 where the fact does not exist.
        values: What the codes stand for, ascending.
    """

    codes: Ints
    values: tuple[Value, ...]

    def among(self, values: Sequence[Value]) -> Bools:
        """``[n_tokens]`` bool: where the value is one of these."""
        chosen = np.zeros(len(self.values) + 1, dtype=bool)  # the last stands for code -1
        chosen[[self._code[value] for value in values if value in self._code]] = True
        return chosen[self.codes]

    @cached_property
    def _code(self) -> dict[Value, int]:
        return {value: code for code, value in enumerate(self.values)}


@dataclass(frozen=True, eq=False)
class Facts:
    """All families of a corpus.

    Attributes:
        corpus: The corpus.
        families: By name, in the order of :data:`FAMILIES`, ``earlier S1`` and the like, ``due``;
            those of roles are missing where the prompts carry none, ``class`` where there is no
            tokenizer. ``due`` is the token that a repetition would bring next: at the latest
            token with a role that repeats an earlier one with a role, what the role after that
            earlier one had.
    """

    corpus: Corpus
    families: dict[str, Family]

    @classmethod
    def of(cls, corpus: Corpus, vocabulary: Vocabulary) -> Facts:
        """Compute every family."""
        found, earlier, late = {"token": _ints(corpus.tokens)}, {}, {}
        previous = _shifted(corpus, corpus.tokens)
        found["previous_token"] = _ints(previous)
        found["previous_pair"] = _pairs(_shifted(corpus, previous), previous)
        if corpus.roles is not None:
            role = _texts(corpus.roles)
            late["due"] = _ints(_due(corpus, role.codes >= 0))
            found["role"] = role
            found["previous_role"] = Family(_shifted(corpus, role.codes), role.values)
            for code, name in enumerate(role.values):
                earlier[f"{EARLIER}{name}"] = _ints(_earlier(corpus, role.codes == code))
        if vocabulary.tokenizer is not None:
            found["class"] = _classes(found["token"], vocabulary)
        repeat = _last_seen(corpus, corpus.tokens) >= 0
        found["repeat"] = _flag(repeat)
        found["after_repeat"] = _flag(_shifted(corpus, repeat.astype(np.int64)) == 1)
        found["repeated_pair"] = _flag(_repeated_pair(corpus, previous))
        found["position"] = _ints(corpus.position)
        found["last"] = _flag(np.isin(np.arange(len(corpus.tokens)), corpus.ptr[1:] - 1))
        ordered = {name: found[name] for name in FAMILIES if name in found}
        told = {name: family for name, family in (earlier | late).items() if family.values}
        return cls(corpus, ordered | told)

    def with_promoted(self, tokens: Sequence[int]) -> Facts:
        """The same facts and the families of one feature.

        Args:
            tokens: Ids of the tokens that the feature promotes most.
        """
        promoted = np.isin(self.corpus.tokens, np.asarray(tokens, dtype=np.int64))
        following = np.append(promoted[1:], False)
        following[self.corpus.ptr[1:] - 1] = False
        own = zip(PROMOTED, (_flag(promoted), _flag(following)), strict=True)
        return Facts(self.corpus, self.families | dict(own))


def token_class(text: str, *, special: bool = False) -> str | None:
    """The character class of a token, or None: one class each, the first that fits."""
    stripped = text.strip()
    if special:
        return "special"
    if not stripped or "\n" in text:
        return "blank"
    if stripped.isdigit():
        return "number"
    if not any(character.isalnum() for character in stripped):
        return "punctuation"
    if not stripped[0].isalpha():
        return None
    return "capitalised" if stripped[0].isupper() else "lowercase"


def _ints(column: Ints) -> Family:
    """A family of integers; negative ones stand for no value."""
    values = np.unique(column[column >= 0])
    codes = np.where(column >= 0, np.searchsorted(values, column), -1)
    return Family(codes.astype(np.int64), tuple(values.tolist()))


def _texts(column: Sequence[str | None]) -> Family:
    values = sorted({value for value in column if value is not None})
    code = {value: i for i, value in enumerate(values)}
    codes = [-1 if value is None else code[value] for value in column]
    return Family(np.asarray(codes, dtype=np.int64), tuple(values))


def _flag(column: Bools) -> Family:
    return Family(np.where(column, 0, -1).astype(np.int64), (True,))


def _classes(token: Family, vocabulary: Vocabulary) -> Family:
    ids = [value for value in token.values if isinstance(value, int)]
    by_token = _texts(
        [token_class(vocabulary.text(i), special=vocabulary.is_special(i)) for i in ids]
    )
    return Family(by_token.codes[token.codes], by_token.values)


def _shifted(corpus: Corpus, column: Ints) -> Ints:
    """The column's value one position earlier in the same prompt, -1 at its start."""
    shifted = np.concatenate([[-1], column[:-1]]).astype(np.int64)
    shifted[corpus.ptr[:-1]] = -1
    return shifted


def _last_seen(corpus: Corpus, column: Ints) -> Ints:
    """Where the column's value occurs last before here in the same prompt: an index, or -1."""
    order = np.lexsort((corpus.position, column, corpus.prompt))
    same = (column[order][1:] == column[order][:-1]) & (
        corpus.prompt[order][1:] == corpus.prompt[order][:-1]
    )
    seen = np.full(len(order), -1)
    seen[order[1:][same]] = order[:-1][same]
    return seen


def _earlier(corpus: Corpus, marked: Bools) -> Ints:
    """The first marked token of the prompt at all positions after it, -1 elsewhere."""
    at = np.flatnonzero(marked)
    prompts, first = np.unique(corpus.prompt[at], return_index=True)
    place = np.full(corpus.n_prompts, len(corpus.tokens))
    place[prompts] = at[first]
    place = place[corpus.prompt]
    after = np.arange(len(corpus.tokens)) > place
    return np.where(after, corpus.tokens[np.where(after, place, 0)], -1)


def _repeated_pair(corpus: Corpus, previous: Ints) -> Bools:
    """Where this token and the one before it occur together earlier in the prompt."""
    pair = _pairs(previous, corpus.tokens).codes
    return (_last_seen(corpus, pair) >= 0) & (pair >= 0)


def _due(corpus: Corpus, marked: Bools) -> Ints:
    """The token that a repetition among the marked ones would bring next, -1 where none would."""
    at = np.flatnonzero(marked)
    prompt = corpus.prompt[at]
    ptr = np.searchsorted(at, corpus.ptr).astype(np.int64)
    before = _last_seen(Corpus(corpus.tokens[at], ptr), corpus.tokens[at])
    # what followed the earlier mention is in the same prompt: at the least this mention itself
    repeats = np.flatnonzero(before >= 0)
    begin, brings = at[repeats], corpus.tokens[at[before[repeats] + 1]]
    latest = np.searchsorted(begin, np.arange(len(corpus.tokens)), side="right") - 1
    known = latest >= 0
    known[known] = prompt[repeats][latest[known]] == corpus.prompt[known]
    due = np.full(len(corpus.tokens), -1)
    due[known] = brings[latest[known]]
    return due


def _pairs(first: Ints, second: Ints) -> Family:
    """A family of pairs of integers; a negative one stands for no value."""
    there = (first >= 0) & (second >= 0)
    pairs, code = np.unique(np.stack([first[there], second[there]]), axis=1, return_inverse=True)
    codes = np.full(len(first), -1)
    codes[there] = code.reshape(-1)
    return Family(codes.astype(np.int64), tuple((int(a), int(b)) for a, b in pairs.T))
