"""Contexts, facts and words of single features: no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpret_world import BOOK, BOTTLE, NEWLINE, TO, Prompt, Tokenizer, explain, make_prompts
from pie_fast.errors import PieFastError
from pie_fast.interpret import Activity, Corpus, Facts, Vocabulary
from pie_fast.interpret.rules.facts import token_class

# contexts


def corpus_of(*lengths: int) -> Corpus:
    return Corpus.of([Prompt(tuple(range(n))) for n in lengths])


def test_top_contexts_are_the_peaks_in_order_of_strength_then_prompt():
    corpus = corpus_of(4, 4, 4, 4)
    entries = [(3, 1, 2.0), (0, 2, 2.0), (0, 1, 2.0), (1, 0, 1.0), (1, 3, 5.0), (2, 0, 0.0)]
    activity = Activity.of(corpus, *zip(*entries, strict=True))
    found = [(c.prompt, c.peak, c.activation) for c in activity.top(9)]
    assert found == [(1, 3, 5.0), (0, 1, 2.0), (3, 1, 2.0)]
    assert activity.top(1) == activity.peaks[:1]
    assert activity.positions == (0, 1, 2, 3)
    assert activity.n_active_prompts == 3
    assert activity.share_of_prompts == 0.75
    assert activity.density == 5 / 16


def test_negative_activations_count_by_their_strength():
    activity = Activity.of(corpus_of(3), [0, 0], [0, 2], [1.0, -4.0])
    assert [(c.peak, c.activation) for c in activity.peaks] == [(2, -4.0)]


def test_quantiles_run_from_the_strongest_to_the_weakest():
    activity = Activity.of(corpus_of(*[2] * 9), range(9), [0] * 9, np.arange(1.0, 10.0))
    assert [c.prompt for c in activity.quantiles(3)] == [8, 4, 0]
    assert [c.prompt for c in activity.quantiles(1)] == [8]
    assert activity.quantiles(0) == ()
    assert len(activity.quantiles(50)) == 9


def test_silent_prompts_are_those_without_a_firing():
    activity = Activity.of(corpus_of(*[2] * 6), [1, 4, 2], [0, 1, 1], [1.0, 1.0, 0.0])
    assert activity.silent(9) == (0, 2, 3, 5)
    assert activity.silent(2) == (0, 5)


def test_a_feature_without_entries_has_no_contexts():
    activity = Activity.of(corpus_of(3, 3), [], [], [])
    assert activity.peaks == activity.quantiles(3) == activity.positions == ()
    assert activity.density == activity.share_of_prompts == 0
    assert activity.silent(2) == (0, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(-3, 3)), max_size=30))
def test_peaks_match_a_literal_loop(entries):
    entries = list({(p, t): (p, t, a) for p, t, a in entries}.values())
    activity = Activity.of(
        corpus_of(*[7] * 5), *(zip(*entries, strict=True) if entries else ((), (), ()))
    )
    peaks = []
    for prompt in range(5):
        mine = [(-abs(a), t, a) for p, t, a in entries if p == prompt and a != 0]
        if mine:
            strength, t, a = min(mine)
            peaks.append((strength, prompt, t, a))
    assert [(c.prompt, c.peak, c.activation) for c in activity.peaks] == [
        (prompt, t, a) for _, prompt, t, a in sorted(peaks)
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (([2], [0], [1.0]), "prompt 2; the prompts are 0 to 1"),
        (([0], [3], [1.0]), "position 3; its prompt has 3 tokens"),
        (([0], [0], [float("nan")]), "activation nan; it must be finite"),
        (([0, 0], [1, 1], [1.0, 2.0]), "share a prompt and position"),
        (([0], [1, 2], [1.0]), "equally many"),
    ],
)
def test_broken_entries_are_refused(entries, message):
    with pytest.raises(PieFastError, match=message):
        Activity.of(corpus_of(3, 3), *entries)


@pytest.mark.parametrize("prompts", [[], [Prompt(())]])
def test_a_corpus_needs_prompts_with_tokens(prompts):
    with pytest.raises(PieFastError, match="at least one prompt"):
        Corpus.of(prompts)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_taking_prompts_is_making_a_corpus_of_them(lengths, data):
    n_tokens = sum(lengths)
    prompts = [Prompt(tuple(range(10 * i, 10 * i + n))) for i, n in enumerate(lengths)]
    roles = tuple(f"role {i}" for i in range(n_tokens))
    sources = tuple(f"file {i}" for i in range(len(lengths)))
    whole = replace(Corpus.of(prompts), roles=roles, sources=sources)
    counted = np.asarray(data.draw(st.lists(st.booleans(), min_size=n_tokens, max_size=n_tokens)))
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    some = replace(whole, counted=counted).take(chosen)
    assert some.n_prompts == len(chosen)
    assert some.sources == tuple(sources[i] for i in chosen)
    for i, prompt in enumerate(chosen):
        here = slice(whole.ptr[prompt], whole.ptr[prompt + 1])
        there = slice(some.ptr[i], some.ptr[i + 1])
        assert some.tokens_of(i).tolist() == list(prompts[prompt].tokens)
        assert some.roles[there] == roles[here]
        assert some.counted_mask[there].tolist() == counted[here].tolist()
    assert whole.take(chosen).counted_mask.all()


@pytest.mark.parametrize("bad", [-1, 2])
def test_only_prompts_of_the_corpus_can_be_taken(bad):
    with pytest.raises(PieFastError, match=f"prompt {bad} is not in the corpus.* 0 to 1"):
        corpus_of(3, 3).take([0, bad])


def test_density_is_over_the_counted_positions():
    corpus = replace(corpus_of(4), counted=np.array([False, True, True, True]))
    assert Activity.of(corpus, [0], [1], [2.0]).density == 1 / 3


# facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Mary", "capitalised"),
        ("went", "lowercase"),
        (" 42", "number"),
        ('"""', "punctuation"),
        ("\n    ", "blank"),
        ("   ", "blank"),
        ("", "blank"),
        ("3rd", None),
    ],
)
def test_token_classes(text, expected):
    assert token_class(text) == expected
    assert token_class(text, special=True) == "special"


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=5))
def test_repeats_match_a_literal_loop(rows):
    corpus = Corpus.of([Prompt(tuple(row)) for row in rows])
    facts = Facts.of(corpus, Vocabulary(None))

    def held(name: str) -> list[bool]:
        return facts.families[name].among([True]).tolist()

    places = [(row, t) for row in rows for t in range(len(row))]
    assert held("repeat") == [row[t] in row[:t] for row, t in places]
    assert held("after_repeat") == [t > 0 and row[t - 1] in row[: t - 1] for row, t in places]
    pairs = [[(row[s - 1], row[s]) for s in range(1, t)] for row, t in places]
    expected = [
        t > 0 and (row[t - 1], row[t]) in seen for (row, t), seen in zip(places, pairs, strict=True)
    ]
    assert held("repeated_pair") == expected
    assert held("last") == [t == len(row) - 1 for row, t in places]
    previous = facts.families["previous_token"]
    assert [previous.values[c] if c >= 0 else None for c in previous.codes] == [
        row[t - 1] if t else None for row, t in places
    ]


def test_the_token_of_an_earlier_role_matches_a_literal_loop():
    prompts = make_prompts(20)
    facts = Facts.of(Corpus.of(prompts), Vocabulary(None))
    family = facts.families["earlier S1"]
    found = [family.values[code] if code >= 0 else None for code in family.codes]
    assert found == [
        p.tokens[p.roles.index("S1")] if t > p.roles.index("S1") else None
        for p in prompts
        for t in range(len(p.tokens))
    ]
    assert "earlier END" not in facts.families  # nothing comes after it


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.sampled_from([None, "a", "b"])), min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_the_token_due_by_repetition_matches_a_literal_loop(rows):
    prompts = [Prompt(*(tuple(column) for column in zip(*row, strict=True))) for row in rows]
    family = Facts.of(Corpus.of(prompts), Vocabulary(None)).families.get("due")
    expected = []
    for prompt in prompts:
        due, marked = None, []
        for t, (token, role) in enumerate(zip(prompt.tokens, prompt.roles, strict=True)):
            if role is not None:
                marked.append(t)
                listed = [prompt.tokens[i] for i in marked]
                if token in listed[:-1]:
                    last = len(listed) - 2 - listed[:-1][::-1].index(token)
                    due = listed[last + 1]
            expected.append(due)
    if family is None:
        assert set(expected) == {None}
    else:
        assert [family.values[c] if c >= 0 else None for c in family.codes] == expected


def test_roles_and_classes_are_families_only_where_there_are_any():
    facts = Facts.of(corpus_of(3), Vocabulary(None))
    assert not {"role", "previous_role", "class"} & set(facts.families)
    mixed = Corpus.of([Prompt((1, 2)), Prompt((1, 2), ("S1", None))])
    assert mixed.roles == (None, None, "S1", None)


# words


def test_tokens_without_a_tokenizer_are_shown_by_id():
    vocabulary = Vocabulary(None)
    assert vocabulary.text(17) == vocabulary.quoted(17) == "<17>"
    known = Vocabulary(Tokenizer())
    assert known.quoted(NEWLINE) == '"\\n   "' and known.quoted(99) == "<99>"


def test_sentencepiece_tokens_keep_their_space():
    class Pieces(Tokenizer):
        def decode(self, ids: list[int]) -> str:
            return "Mary"

        def convert_ids_to_tokens(self, token: int) -> str:
            return "▁Mary"

    assert Vocabulary(Pieces()).text(1) == " Mary"


def test_the_commonest_values_are_named_first():
    rule, text = explain(make_prompts(roles=False), lambda p, t: p.tokens[t] in (BOTTLE, BOOK, TO))
    assert text.startswith('fires in 100% of prompts, on " to"')
    assert rule.conditions[0].values[0] == TO


def test_long_sets_are_cut():
    from pie_fast.interpret.rules.conditions import Condition
    from pie_fast.interpret.rules.wording import describe

    text = describe([(Condition("token", tuple(range(1, 8))),)], Vocabulary(None))
    assert text == "<1>, <2>, <3> or 4 others"


def test_the_package_imports_no_torch():
    code = "import sys, pie_fast.interpret; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
