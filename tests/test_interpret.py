"""Contexts and rules of single features: no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_fast.errors import PieFastError
from pie_fast.interpret import Activity, Corpus, Facts, Vocabulary, mine_rule
from pie_fast.interpret.facts import token_class
from pie_fast.interpret.rules import Rule, Score, best_values, split_prompts
from pie_fast.interpret.sentence import label

WORDS = ["<bos>", " Mary", " John", " Tom", " Ann", " went", " gave", " to", " bottle", " book"]
WORDS += [".", "\n   ", " 7", " 42", " and", " the"]
BOS, NAMES, TO, BOTTLE, BOOK, DOT, NEWLINE = 0, (1, 2, 3, 4), 7, 8, 9, 10, 11
FILLERS = (5, 6, 12, 13, 14, 15)


class Tokenizer:
    all_special_ids = (BOS,)

    def decode(self, ids: list[int]) -> str:
        return WORDS[ids[0]] if ids[0] < len(WORDS) else ""


@dataclass(frozen=True)
class Prompt:
    tokens: tuple[int, ...]
    roles: tuple[str | None, ...] | None = None


def make_prompts(n: int = 80, *, roles: bool = True, seed: int = 0) -> list[Prompt]:
    """Like IOI: two names, fillers, one of the names again, an object, and " to" at the end.

    Loose enough that no role, position, token or neighbour stands for another one.
    """
    rng = np.random.default_rng(seed)

    def filler(least: int, most: int) -> list[int]:
        return rng.choice(FILLERS, rng.integers(least, most + 1)).tolist()

    prompts = []
    for _ in range(n):
        s, io = rng.permutation(NAMES)[:2].tolist()
        head = [BOS, *filler(0, 2)]
        middle = [*filler(1, 3), int(rng.choice([DOT, NEWLINE, TO])), *filler(0, 2)]
        thing = int(rng.choice([BOTTLE, BOOK]))
        tail = [*filler(0, 1), thing, int(rng.choice([TO, DOT])), *filler(0, 1), TO]
        tokens = [*head, s, 14, io, *middle, s, *tail]
        first, second = len(head), len(head) + 3 + len(middle)
        parts = {first: "S1", first + 2: "IO", second: "S2", len(tokens) - 1: "END"}
        names = tuple(parts.get(t) for t in range(len(tokens)))
        prompts.append(Prompt(tuple(tokens), names if roles else None))
    return prompts


def activity_where(corpus: Corpus, where: np.ndarray, seed: int = 0) -> Activity:
    at = np.flatnonzero(where)
    values = np.random.default_rng(seed).uniform(0.5, 2.0, len(at)).astype(np.float32)
    return Activity.of(corpus, corpus.prompt[at], corpus.position[at], values)


def explain(prompts: list[Prompt], where) -> tuple[Rule, str]:
    """The rule and label of a feature that fires where `where(token, previous, prompt, t)`."""
    corpus, vocabulary = Corpus.of(prompts), Vocabulary(Tokenizer())
    facts = Facts.of(corpus, vocabulary)
    fires = [where(p, t) for p in prompts for t in range(len(p.tokens))]
    activity = activity_where(corpus, np.asarray(fires))
    rule = mine_rule(facts, activity)
    assert rule is not None
    return rule, label(rule, activity, facts, vocabulary)


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


def test_roles_and_classes_are_families_only_where_there_are_any():
    facts = Facts.of(corpus_of(3), Vocabulary(None))
    assert not {"role", "previous_role", "class"} & set(facts.families)
    mixed = Corpus.of([Prompt((1, 2)), Prompt((1, 2), ("S1", None))])
    assert mixed.roles == (None, None, "S1", None)


# rules


def follows(tokens: tuple[int, ...], t: int, token: int) -> bool:
    return t > 0 and tokens[t - 1] == token


PLANTED = {
    "role": (True, lambda p, t: p.roles[t] == "S2", "fires on S2 (the repeated name)"),
    "role gloss": (True, lambda p, t: p.roles[t] == "END", 'fires on END (" to")'),
    "token": (False, lambda p, t: p.tokens[t] == DOT, 'fires on "."'),
    "token set": (
        False,
        lambda p, t: p.tokens[t] in (BOTTLE, DOT),
        'fires on "." or " bottle"',
    ),
    "previous": (
        False,
        lambda p, t: follows(p.tokens, t, 14),
        'fires on any token after " and"',
    ),
    "previous role": (
        True,
        lambda p, t: t > 0 and p.roles[t - 1] == "S2",
        "fires on any token after S2",
    ),
    "after a repeat": (
        False,
        lambda p, t: t > 0 and p.tokens[t - 1] in p.tokens[: t - 1],
        "fires on any token after a token seen earlier in the prompt",
    ),
    "class": (
        False,
        lambda p, t: WORDS[p.tokens[t]].strip().isdigit(),
        "fires on a number",
    ),
    "names": (False, lambda p, t: p.tokens[t] in NAMES, "fires on a capitalised word"),
    "start": (False, lambda p, t: t == 0, 'fires on "<bos>"'),
    "position": (False, lambda p, t: t == 5, "fires on any token at position 5"),
    "last": (False, lambda p, t: t == len(p.tokens) - 1, "at the end of the prompt"),
    "joined": (
        False,
        lambda p, t: p.tokens[t] == TO and follows(p.tokens, t, BOTTLE),
        'fires on " to" after " bottle"',
    ),
    "repeated name": (
        False,
        lambda p, t: p.tokens[t] in NAMES and p.tokens[t] in p.tokens[:t],
        "fires on a capitalised word seen earlier in the prompt",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_rule_is_found(name):
    roles, where, start = PLANTED[name]
    rule, text = explain(make_prompts(roles=roles), where)
    assert start in text, text
    assert rule.held_out.f1 >= 0.95, text


def test_an_induction_feature_is_found_without_a_common_token():
    rng = np.random.default_rng(1)
    rows = [rng.permutation(400)[:10].tolist() for _ in range(40)]
    prompts = [Prompt((*row, *row[3:5])) for row in rows]
    corpus = Corpus.of(prompts)
    facts = Facts.of(corpus, Vocabulary(None))
    activity = activity_where(corpus, facts.families["repeated_pair"].among([True]))
    rule = mine_rule(facts, activity)
    assert rule is not None and rule.held_out.f1 == 1.0
    text = label(rule, activity, facts, Vocabulary(None))
    assert "pair of tokens seen earlier" in text and "[F1 1.00]" in text


@pytest.mark.parametrize("density", [0.05, 0.3])
def test_shuffled_activations_get_no_rule_and_the_f1_of_knowing_nothing(density):
    corpus, vocabulary = Corpus.of(make_prompts(120)), Vocabulary(Tokenizer())
    facts = Facts.of(corpus, vocabulary)
    gains = []
    for seed in range(40):
        shuffled = np.random.default_rng(seed).random(len(corpus.tokens)) < density
        activity = activity_where(corpus, shuffled, seed)
        rule = mine_rule(facts, activity)
        assert rule is not None
        gains.append(rule.held_out.f1 - rule.base_f1)
        if not rule.conditions:
            assert "by no rule found" in label(rule, activity, facts, vocabulary)
    assert abs(float(np.mean(gains))) < 0.03
    assert max(gains) < 0.12


def test_a_feature_that_fires_everywhere_is_called_that():
    _, text = explain(make_prompts(), lambda p, t: t > 0)
    assert "on almost every token" in text


def test_a_noisy_rule_shows_its_quality():
    noise = np.random.default_rng(5)
    rule, text = explain(
        make_prompts(200), lambda p, t: p.roles[t] == "S2" and noise.random() < 0.55
    )
    assert text.startswith("tends to fire on S2")
    assert rule.held_out.precision < 0.75
    assert f"[F1 {rule.held_out.f1:.2f}]".replace("0.", ".") in text


def test_a_rule_is_judged_on_prompts_it_was_not_mined_on():
    # every prompt fires on a token of its own: nothing mined can be right elsewhere
    prompts = [Prompt((100, 200 + i, 101)) for i in range(40)]
    corpus = Corpus.of(prompts)
    facts = Facts.of(corpus, Vocabulary(None))
    fires = np.zeros(len(corpus.tokens), dtype=bool)
    fires[np.arange(40) * 3 + np.random.default_rng(0).integers(0, 3, 40)] = True
    rule = mine_rule(facts, activity_where(corpus, fires))
    assert rule is not None
    assert not any(c.family == "token" and len(c.values) > 3 for c in rule.conditions)
    assert rule.held_out.f1 < 0.7


def test_the_split_halves_active_and_silent_prompts_and_not_by_parity():
    corpus = Corpus.of(make_prompts(41))
    activity = Activity.of(corpus, range(0, 20), [1] * 20, [1.0] * 20)
    mining = split_prompts(activity)
    assert abs(int(mining[:20].sum()) - 10) <= 1
    assert abs(int(mining[20:].sum()) - 10) <= 1
    assert 5 < mining[::2].sum() < 16 and 5 < mining[1::2].sum() < 16


def test_two_active_prompts_are_one_on_each_side():
    corpus = Corpus.of(make_prompts(9))
    for pair in ([0, 1], [3, 8], [2, 5]):
        mining = split_prompts(Activity.of(corpus, pair, [1, 1], [1.0, 1.0]))
        assert mining[pair].sum() == 1


def test_one_active_prompt_is_too_few_to_judge_a_rule():
    prompts = make_prompts(9)
    corpus, vocabulary = Corpus.of(prompts), Vocabulary(Tokenizer())
    facts = Facts.of(corpus, vocabulary)
    end = len(prompts[4].tokens) - 1
    activity = Activity.of(corpus, [4], [end], [1.0])
    assert mine_rule(facts, activity) is None
    thing = WORDS[prompts[4].tokens[end - 1]]
    text = label(None, activity, facts, vocabulary)
    assert text == f'fires in 1 of 9 prompts, on " to" after "{thing}"'


def test_a_feature_that_never_fires_says_so():
    corpus = Corpus.of(make_prompts(9))
    facts = Facts.of(corpus, Vocabulary(Tokenizer()))
    activity = Activity.of(corpus, [3], [1], [0.0])
    assert mine_rule(facts, activity) is None
    text = label(None, activity, facts, Vocabulary(Tokenizer()))
    assert text == "never fires on these 9 prompts (only its baseline counts)"
    nothing = Activity.of(corpus, [], [], [])
    assert label(None, nothing, facts, Vocabulary(None)) == "never fires on these 9 prompts"


def test_facts_of_another_corpus_are_refused():
    one, other = Corpus.of(make_prompts(4)), Corpus.of(make_prompts(4))
    with pytest.raises(PieFastError, match="different corpora"):
        mine_rule(Facts.of(one, Vocabulary(None)), Activity.of(other, [0], [0], [1.0]))


def test_the_same_input_gives_the_same_rule():
    prompts = make_prompts(30)
    rules = [explain(prompts, lambda p, t: p.tokens[t] in (TO, DOT))[0] for _ in range(2)]
    assert rules[0] == rules[1]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 5),
)
def test_the_value_set_has_the_best_f1_of_all_sets_up_to_its_cost(rows, hidden):
    from itertools import combinations

    from pie_fast.interpret.facts import Family
    from pie_fast.interpret.rules import COST_VALUE

    codes = np.asarray([code for code, _ in rows], dtype=np.int64)
    fires = np.asarray([fire for _, fire in rows], dtype=bool)
    family, everywhere = Family(codes, tuple(range(6))), np.ones(len(rows), dtype=bool)
    n_firing = int(fires.sum()) + hidden  # firings elsewhere, which no set can reach

    def f1(values: tuple[int, ...]) -> float:
        said = np.isin(codes, values)
        return 2 * int((said & fires).sum()) / max(int(said.sum()) + n_firing, 1)

    values = best_values(family, fires, everywhere, n_firing, COST_VALUE)
    assert bool(values) == bool(fires.any())
    if values:
        sets = (s for n in range(1, 7) for s in combinations(range(6), n))
        best = max(f1(s) for s in sets)
        assert best - f1(values) <= 5 * COST_VALUE + 1e-12


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_scores_match_their_definitions(rows):
    said = np.asarray([a for a, _ in rows], dtype=bool)
    there = np.asarray([b for _, b in rows], dtype=bool)
    score = Score.of(said, there)
    hits = sum(a and b for a, b in rows)
    assert score.precision == (hits / said.sum() if said.any() else 0)
    assert score.recall == (hits / there.sum() if there.any() else 0)
    total = score.precision + score.recall
    assert score.f1 == pytest.approx(2 * score.precision * score.recall / total if total else 0)


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
    assert text.startswith('fires on " to"')
    assert rule.conditions[0].values[0] == TO


def test_long_sets_are_cut():
    from pie_fast.interpret.rules import Condition
    from pie_fast.interpret.sentence import describe

    text = describe([Condition("token", tuple(range(1, 8)))], Vocabulary(None))
    assert text == "<1>, <2>, <3> or 4 others"


def test_the_package_imports_no_torch():
    code = "import sys, pie_fast.interpret; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
