"""Rules: planted ones are found, shuffled activations give none, quality is held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpret_world import (
    BOTTLE,
    DOT,
    NAMES,
    TO,
    WORDS,
    Prompt,
    Tokenizer,
    activity_where,
    explain,
    make_prompts,
)
from pie_fast.errors import PieFastError
from pie_fast.interpret import Activity, Corpus, Facts, Vocabulary, mine_rule
from pie_fast.interpret.rules import Score, best_values, split_prompts
from pie_fast.interpret.sentence import label


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
    "earlier role": (
        True,
        lambda p, t: p.roles[t] == "END" and p.tokens[p.roles.index("IO")] in (1, 3),
        'fires on END (" to") where IO is ',
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


@settings(deadline=None)
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


@settings(deadline=None)
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
