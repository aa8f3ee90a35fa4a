"""A rule and a feature's output tokens as one plain sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pie_fast.interpret.contexts import Activity
from pie_fast.interpret.rules.conditions import term_holds
from pie_fast.interpret.rules.facts import Facts
from pie_fast.interpret.rules.rule import HeldOut, Rule
from pie_fast.interpret.rules.wording import describe
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import TokenEffect

#: roles whose names say little by themselves
ROLES = {
    "IO": "the name that comes once",
    "S1": "the first mention of the repeated name",
    "S2": "the repeated name",
}

#: F1 or average precision above chance, held out, from which on the sentence is sure
_SURE = 0.8

#: share of the feature's strength that a rule must cover for "most on"
_MOST = 0.5

#: positions held out below which the sentence says how few they were
_FEW = 20


def label(
    rule: Rule | None,
    activity: Activity,
    facts: Facts,
    vocabulary: Vocabulary,
    promoted: Sequence[TokenEffect] = (),
    suppressed: Sequence[TokenEffect] = (),
    weights: ArrayLike | None = None,
) -> str:
    """The sentence: ``fires in 97% of prompts, on S2 (the repeated name) [AP .98, covers 94%]``.

    How much the rule says is in the word before it:

        on            it finds where the feature fires (F1)
        most on       it finds where the feature is strongest (average precision above chance),
                      and at least half of its strength lies there
        strongest on  the same with less than half of its strength
        loosely on    neither

    The share of prompts is the feature's own. "Covers" is the share of its strength that lies
    where the rule holds; "at 6 places" stands where the rule was seen so rarely. All but the share
    are of prompts that had no say in the rule.

    Args:
        rule: None where the feature fires in too few prompts for one.
        activity: The feature's.
        facts: Of its corpus, the feature's own among them if the rule has any.
        vocabulary: Texts of tokens.
        promoted: Tokens that it raises, strongest first.
        suppressed: Tokens that it lowers, strongest first.
        weights: ``[n_prompts]`` floats, how many prompts each one stands for; 1 if not given.
    """
    shares = _Shares.of(activity, weights)
    parts = [_where(rule, activity, shares, facts, vocabulary)]
    for verb, tokens in (("raises", promoted[:3]), ("lowers", suppressed[:2])):
        if tokens:
            parts.append(f"{verb} {', '.join(vocabulary.quoted(t.token_id) for t in tokens)}")
    return "; ".join(parts)


class _Shares(NamedTuple):
    """How much of the text it fires in, each prompt weighed by how many it stands for."""

    prompts: float
    tokens: float
    n_prompts: int

    @classmethod
    def of(cls, activity: Activity, weights: ArrayLike | None) -> _Shares:
        corpus = activity.corpus
        n = corpus.n_prompts
        weight = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
        active = np.zeros(n, dtype=bool)
        active[corpus.prompt[activity.at]] = True
        counted = weight[corpus.prompt[corpus.counted_mask]].sum()
        return cls(
            float(weight[active].sum() / weight.sum()),
            float(weight[corpus.prompt[activity.at]].sum() / counted),
            round(weight.sum()),
        )


def _where(
    rule: Rule | None, activity: Activity, shares: _Shares, facts: Facts, vocabulary: Vocabulary
) -> str:
    n_active = activity.n_active_prompts
    if n_active == 0:
        why = " (only its baseline counts)" if activity.n_zero else ""
        return f"never fires on these {shares.n_prompts} prompts{why}"
    if rule is None:
        strongest = ", at its strongest on " if n_active > 1 else ", on "
        peak = _peak(activity, vocabulary)
        return f"fires in {n_active} of {shares.n_prompts} prompts{strongest}{peak}"
    where = f"in {shares.prompts:.0%} of prompts"
    if not rule.conditions:
        share = f"{shares.tokens:.0%}" if shares.tokens >= 0.01 else "under 1%"
        tail = "on almost every token" if shares.tokens > _SURE else "by no rule found"
        return f"fires on {share} of tokens {where}, {tail}"
    gloss = _gloss(rule, activity, facts, vocabulary)
    said = describe(rule.terms, vocabulary, gloss)
    return f"fires {where}, {_on(rule.held_out)} {said} {_quality(rule.held_out)}"


def _on(held_out: HeldOut) -> str:
    if held_out.f1 >= _SURE:
        return "on"
    if (held_out.above_chance or 0.0) < _SURE:
        return "loosely on"
    return "most on" if held_out.coverage >= _MOST else "strongest on"


def _quality(held_out: HeldOut) -> str:
    precision = held_out.average_precision
    if precision is None:
        return "[not seen held out]"
    n = held_out.n_holds
    few = f", at {n} place{'' if n == 1 else 's'}" if n < _FEW else ""
    return f"[AP {_score(precision)}, covers {held_out.coverage:.0%}{few}]"


def _peak(activity: Activity, vocabulary: Vocabulary) -> str:
    """The token at the strongest peak, and the one before it."""
    context = activity.peaks[0]
    tokens = activity.corpus.tokens_of(context.prompt)
    before = f" after {vocabulary.quoted(int(tokens[context.peak - 1]))}" if context.peak else ""
    return vocabulary.quoted(int(tokens[context.peak])) + before


def _gloss(rule: Rule, activity: Activity, facts: Facts, vocabulary: Vocabulary) -> str:
    """What a role is, for those who do not know its name: its meaning, or its usual token."""
    families = [condition.family for condition in rule.terms[0]]
    if "role" not in families or "token" in families:
        return ""
    values = rule.terms[0][families.index("role")].values
    if len(values) == 1 and values[0] in ROLES:
        return f" ({ROLES[str(values[0])]})"
    there = facts.corpus.tokens[term_holds(rule.terms[0], facts) & activity.fires]
    tokens, counts = np.unique(there, return_counts=True)
    if len(tokens) == 0 or counts.max() < 0.9 * counts.sum():
        return ""
    return f" ({vocabulary.quoted(int(tokens[counts.argmax()]))})"


def _score(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
