"""Prompts made to express a rule: the rule holds by its literal meaning, and little was changed."""

from __future__ import annotations

import numpy as np
import pytest

from interpret_world import (
    BOTTLE,
    DOT,
    NAMES,
    TO,
    WORDS,
    Tokenizer,
    activity_where,
    make_prompts,
)
from pie_fast.interpret import Corpus, Facts, Vocabulary
from pie_fast.interpret.rules import HeldOut, Rule
from pie_fast.interpret.rules.conditions import Condition
from pie_fast.interpret.rules.edits import edited, holding
from pie_fast.interpret.rules.parts import parts_of_prompts

PROMOTED = (6, 12)
VOCABULARY = Vocabulary(Tokenizer())
PROMPTS = make_prompts(80)
CORPUS = Corpus.of(PROMPTS)
FACTS = Facts.of(CORPUS, VOCABULARY).with_promoted(PROMOTED)
ACTIVITY = activity_where(CORPUS, CORPUS.tokens == DOT)
REPORTED = np.flatnonzero(parts_of_prompts(ACTIVITY) == 2).tolist()


def rule_of(*terms):
    return Rule(tuple(terms), HeldOut.of(np.zeros(0, bool), np.zeros(0), np.zeros(0)))


def make(rule, n=30, seed=0):
    return edited(rule, FACTS, ACTIVITY, VOCABULARY, n, promoted=PROMOTED, seed=seed)


EDITABLE = {
    "token": ([Condition("token", (DOT,))], lambda s, t: s[t] == DOT, 1),
    "class": ([Condition("class", ("number",))], lambda s, t: WORDS[s[t]].strip().isdigit(), 1),
    "repeat": ([Condition("repeat", (True,))], lambda s, t: s[t] in s[:t], 1),
    "previous": ([Condition("previous_token", (14,))], lambda s, t: s[t - 1] == 14, 1),
    "after repeat": ([Condition("after_repeat", (True,))], lambda s, t: s[t - 1] in s[: t - 1], 1),
    "pair": ([Condition("previous_pair", ((5, 6),))], lambda s, t: s[t - 2 : t] == (5, 6), 2),
    "repeated pair": (
        [Condition("repeated_pair", (True,))],
        lambda s, t: s[t - 1 : t + 1] in {s[i : i + 2] for i in range(t - 1)},
        2,
    ),
    "promoted": ([Condition("promoted", (True,))], lambda s, t: s[t] in PROMOTED, 1),
    "next": ([Condition("next_promoted", (True,))], lambda s, t: s[t + 1] in PROMOTED, 1),
    "joined": (
        [Condition("token", (TO,)), Condition("previous_token", (BOTTLE,))],
        lambda s, t: s[t - 1 : t + 1] == (BOTTLE, TO),
        2,
    ),
    "earlier role": (
        [Condition("role", ("END",)), Condition("earlier IO", (NAMES[1],))],
        lambda s, t: t == len(s) - 1 and NAMES[1] in s,
        1,
    ),
    "due": (
        [Condition("token", (TO,)), Condition("due", (NAMES[1],))],
        lambda s, t: s[t] == TO and NAMES[1] in s[:t],
        2,
    ),
}


@pytest.mark.parametrize("name", EDITABLE)
def test_edits_make_the_rule_true_with_few_changes(name):
    term, true, most = EDITABLE[name]
    made = make(rule_of(tuple(term)))
    assert made.how == "edit" and len(made.sequences) >= 5
    originals = [PROMPTS[i].tokens for i in REPORTED]
    assert CORPUS.position[list(made.at)].tolist() == list(made.positions)
    rows = zip(made.sequences, made.positions, made.n_changed, made.at, strict=True)
    for tokens, at, changed, place in rows:
        original = PROMPTS[CORPUS.prompt[place]].tokens
        assert sum(a != b for a, b in zip(original, tokens, strict=True)) <= changed
        assert true(tokens, at)
        assert 1 <= changed <= most
        like = [p for p in originals if len(p) == len(tokens)]
        assert min(sum(a != b for a, b in zip(p, tokens, strict=True)) for p in like) <= changed


def test_of_two_terms_the_one_that_needs_less_is_made_true():
    hard = (Condition("token", (TO,)), Condition("previous_token", (BOTTLE,)))
    easy = (Condition("token", (DOT,)),)
    assert set(make(rule_of(hard, easy)).n_changed) == {1}


def test_what_cannot_be_edited_is_not_and_fresh_prompts_serve():
    fixed = rule_of((Condition("position", (5,)),))
    assert make(fixed).sequences == ()
    fresh = make_prompts(50, seed=9)
    found = holding(fixed, Facts.of(Corpus.of(fresh), VOCABULARY), 20)
    assert found.how == "fresh" and len(found.sequences) == 20 and set(found.positions) == {5}
    assert set(found.sequences) <= {p.tokens for p in fresh}
    never = rule_of((Condition("token", (999,)), Condition("position", (0,))))
    assert holding(never, FACTS, 5).sequences == ()


def test_edits_are_bounded_and_the_same_for_the_same_seed():
    rule = rule_of((Condition("token", (DOT, BOTTLE)),))
    assert make(rule, seed=3) == make(rule, seed=3) != make(rule, seed=4)
    assert len(make(rule, n=7).sequences) == 7 and make(rule, n=0).sequences == ()
    # prompts come in turn: so many edits as prompts are of as many prompts
    assert len({len(s) for s in make(rule, n=len(REPORTED)).sequences}) > 3
