"""Prompts made to express a rule: as few tokens changed as possible, until it holds.

Clarity needs positions where the concept was put on purpose. A prompt of the reporting part is
taken at a position where the rule does not hold, and changed there:

    token, class, promoted        the token itself
    repeat                        the token itself, to one seen earlier
    previous_token, after_repeat  the one before; previous_pair the two before; next_promoted the
                                  one after; repeated_pair this one and the one before
    earlier ROLE, due             the token that played the role, or is due, at all its places
    role, previous_role, position, last     cannot be changed: they must hold already

A change may undo another one, so facts are computed anew and what does not hold is dropped. Where
no change is possible, fresh prompts in which the rule holds do (:func:`holding`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from pie_fast.interpret.contexts import Activity, Bools, Corpus, Ints
from pie_fast.interpret.rules.conditions import Condition, Term
from pie_fast.interpret.rules.facts import EARLIER, Facts, token_class
from pie_fast.interpret.rules.parts import REPORTING, positions_in
from pie_fast.interpret.rules.rule import Rule
from pie_fast.interpret.vocabulary import Vocabulary

#: new token by position
Edit = dict[int, int]

_FIXED = ("role", "previous_role", "position", "last")

#: edits that are tried for each one asked for: some do not hold
_SPARE = 3


@dataclass(frozen=True)
class Made:
    """Prompts in which the rule holds at a known position.

    Attributes:
        sequences: ``[n]`` tuples of token ids.
        positions: ``[n]`` the position in each at which the rule holds.
        how: ``edit`` or ``fresh``.
        n_changed: ``[n]`` tokens that were changed.
        at: ``[n]`` where each position is in the tokens of the corpus that it was made from.
    """

    sequences: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    how: str
    n_changed: tuple[int, ...]
    at: tuple[int, ...]


def edited(
    rule: Rule,
    facts: Facts,
    activity: Activity,
    vocabulary: Vocabulary,
    n: int,
    *,
    promoted: Sequence[int] = (),
    seed: int = 0,
) -> Made:
    """Prompts of the reporting part, minimally edited so that the rule holds at a position.

    Args:
        rule: The rule.
        facts: Of the activity's corpus, with the feature's own families if it has any.
        activity: Of the feature; it decides what the reporting part is.
        vocabulary: Texts of tokens, for classes.
        n: At most so many, fewest changes first, prompts in turn.
        promoted: What ``facts.with_promoted`` was given.
        seed: Of what is drawn; equal arguments give equal prompts.
    """
    plan = _Plan(facts, vocabulary, tuple(promoted), np.random.default_rng(seed))
    free = positions_in(activity, REPORTING) & ~rule.holds(facts)
    options = [option for term in rule.terms for option in plan.options(term, free)]
    tried = _in_turn(options, facts.corpus, seed)[: n * _SPARE]
    if not tried:
        return Made((), (), "edit", (), ())
    corpus, at = _applied(facts.corpus, tried)
    again = Facts.of(corpus, vocabulary).with_promoted(promoted)
    held = np.flatnonzero(rule.holds(again)[at])[:n].tolist()
    return Made(
        tuple(tuple(corpus.tokens_of(i).tolist()) for i in held),
        tuple((at - corpus.ptr[:-1])[held].tolist()),
        "edit",
        tuple(len(tried[i][1]) for i in held),
        tuple(tried[i][0] for i in held),
    )


def holding(rule: Rule, facts: Facts, n: int, *, seed: int = 0) -> Made:
    """Prompts in which the rule holds as they are, one position of each.

    Args:
        rule: The rule.
        facts: Of fresh prompts, with the feature's own families if the rule was mined with them.
        n: At most so many.
        seed: Of which prompts and positions.
    """
    corpus = facts.corpus
    at = np.flatnonzero(rule.holds(facts) & corpus.counted_mask)
    at = np.random.default_rng(seed).permutation(at)
    _, first = np.unique(corpus.prompt[at], return_index=True)
    at = at[np.sort(first)][:n]
    return Made(
        tuple(tuple(corpus.tokens_of(i).tolist()) for i in corpus.prompt[at].tolist()),
        tuple(corpus.position[at].tolist()),
        "fresh",
        (0,) * len(at),
        tuple(at.tolist()),
    )


@dataclass(frozen=True, eq=False)
class _Plan:
    """How conditions of one corpus can be made true."""

    facts: Facts
    vocabulary: Vocabulary
    promoted: tuple[int, ...]
    draw: np.random.Generator
    known: dict[Condition, list[int]] = field(default_factory=dict)

    def options(self, term: Term, free: Bools) -> Iterator[tuple[int, Edit]]:
        """Indices of tokens at which the term can be made true, and the edit that may do it."""
        holds = {condition: condition.holds(self.facts) for condition in term}
        for condition in term:
            if condition.family in _FIXED:
                free = free & holds[condition]
        for at in np.flatnonzero(free).tolist():
            edit: Edit | None = {}
            for condition in term:
                if edit is not None and not holds[condition][at]:
                    more = self._edit(condition, at)
                    edit = None if more is None else edit | more
            if edit:
                yield at, edit

    def _edit(self, condition: Condition, at: int) -> Edit | None:
        """New tokens by index that make a condition true at one token; None if nothing does."""
        corpus, family = self.facts.corpus, condition.family
        begin, end = corpus.ptr[corpus.prompt[at]], corpus.ptr[corpus.prompt[at] + 1]
        before = corpus.tokens[begin:at].tolist()
        if family in ("token", "class", "promoted"):
            return self._set([at], [(token,) for token in self._tokens(condition)])
        if family == "repeat":
            return self._set([at], [(token,) for token in before])
        if family == "next_promoted":
            return self._set([at + 1], [(t,) for t in self.promoted]) if at + 1 < end else None
        if family.startswith(EARLIER) or family == "due":
            return self._renamed(condition, at)
        if family == "repeated_pair":
            return self._set([at - 1, at], list(pairwise(before[:-1])))
        if family == "previous_pair":
            pairs = [value for value in condition.values if isinstance(value, tuple)]
            return self._set([at - 2, at - 1], pairs) if len(before) > 1 else None
        if not before:
            return None
        earlier = before[:-1] if family == "after_repeat" else self._tokens(condition)
        return self._set([at - 1], [(token,) for token in earlier])

    def _set(self, at: list[int], choices: Sequence[tuple[int, ...]]) -> Edit | None:
        if not choices:
            return None
        chosen = choices[int(self.draw.integers(len(choices)))]
        return dict(zip(at, chosen, strict=True))

    def _renamed(self, condition: Condition, at: int) -> Edit | None:
        """The token that played the role, or is due, by another at all its places."""
        corpus, family = self.facts.corpus, self.facts.families[condition.family]
        code = int(family.codes[at])
        if code < 0:
            return None
        prompt = int(corpus.prompt[at])
        tokens = corpus.tokens_of(prompt)
        # a token that is there already would play two parts
        values = [v for v in self._tokens(condition) if v not in tokens]
        places = (np.flatnonzero(tokens == family.values[code]) + corpus.ptr[prompt]).tolist()
        chosen = self._set(places[:1], [(value,) for value in values])
        return None if chosen is None else dict.fromkeys(places, chosen[places[0]])

    def _tokens(self, condition: Condition) -> list[int]:
        """Token ids that make a condition on one token true."""
        if condition not in self.known:
            self.known[condition] = list(self._found(condition))
        return self.known[condition]

    def _found(self, condition: Condition) -> Iterator[int]:
        if condition.family == "promoted":
            yield from self.promoted
        elif condition.family == "class":
            text, special = self.vocabulary.text, self.vocabulary.is_special
            for token in np.unique(self.facts.corpus.tokens).tolist():
                if token_class(text(token), special=special(token)) in condition.values:
                    yield token
        else:
            yield from (value for value in condition.values if isinstance(value, int))


def _in_turn(options: list[tuple[int, Edit]], corpus: Corpus, seed: int) -> list[tuple[int, Edit]]:
    """Fewest changes first; then each prompt's first, each one's second, in drawn order."""
    mixed = np.random.default_rng(seed).permutation(len(options))
    order = sorted(range(len(options)), key=lambda i: (len(options[i][1]), int(mixed[i])))
    seen: dict[tuple[int, int], int] = {}
    keys = []
    for i in order:
        at, edit = options[i]
        group = (len(edit), int(corpus.prompt[at]))
        seen[group] = seen.get(group, 0) + 1
        keys.append((len(edit), seen[group], int(mixed[i])))
    return [options[i] for _, i in sorted(zip(keys, order, strict=True))]


def _applied(corpus: Corpus, options: Sequence[tuple[int, Edit]]) -> tuple[Corpus, Ints]:
    """The edited prompts as a corpus, and the index of each one's position in its tokens."""
    prompts = corpus.prompt[[at for at, _ in options]]
    copy = corpus.take(prompts)
    shift = copy.ptr[:-1] - corpus.ptr[prompts]
    tokens = copy.tokens.copy()
    for (_, edit), by in zip(options, shift.tolist(), strict=True):
        tokens[[at + by for at in edit]] = list(edit.values())
    return replace(copy, tokens=tokens), np.asarray([at for at, _ in options]) + shift
