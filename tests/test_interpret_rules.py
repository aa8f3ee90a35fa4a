"""Rules: planted ones are found, shuffled activations give none, quality is held out."""

from __future__ import annotations

import json
from dataclasses import replace

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
from pie_fast.interpret.rules import HeldOut, Rule
from pie_fast.interpret.rules.conditions import Condition
from pie_fast.interpret.rules.facts import Family
from pie_fast.interpret.rules.mining import best_values
from pie_fast.interpret.rules.parts import parts_of_prompts
from pie_fast.interpret.rules.ranking import DOUBT, FEW, SHARE, Ranking
from pie_fast.interpret.rules.sentence import label


def follows(tokens: tuple[int, ...], t: int, token: int) -> bool:
    return t > 0 and tokens[t - 1] == token


PLANTED = {
    "role": (True, lambda p, t: p.roles[t] == "S2", "prompts, on S2 (the repeated name)"),
    "role gloss": (True, lambda p, t: p.roles[t] == "END", 'prompts, on END (" to")'),
    "token": (False, lambda p, t: p.tokens[t] == DOT, 'prompts, on "."'),
    "token set": (
        False,
        lambda p, t: p.tokens[t] in (BOTTLE, DOT),
        'prompts, on "." or " bottle"',
    ),
    "previous": (
        False,
        lambda p, t: follows(p.tokens, t, 14),
        'prompts, on any token after " and"',
    ),
    "previous role": (
        True,
        lambda p, t: t > 0 and p.roles[t - 1] == "S2",
        "prompts, on any token after S2",
    ),
    "earlier role": (
        True,
        lambda p, t: p.roles[t] == "END" and p.tokens[p.roles.index("IO")] in (1, 3),
        'prompts, on END (" to") where IO is ',
    ),
    "after a repeat": (
        False,
        lambda p, t: t > 0 and p.tokens[t - 1] in p.tokens[: t - 1],
        "prompts, on any token after a token seen earlier in the prompt",
    ),
    "class": (
        False,
        lambda p, t: WORDS[p.tokens[t]].strip().isdigit(),
        "prompts, on a number",
    ),
    "names": (False, lambda p, t: p.tokens[t] in NAMES, "prompts, on a capitalised word"),
    "start": (False, lambda p, t: t == 0, 'prompts, on "<bos>"'),
    "position": (False, lambda p, t: t == 5, "prompts, on any token at position 5"),
    "last": (False, lambda p, t: t == len(p.tokens) - 1, "at the end of the prompt"),
    "joined": (
        False,
        lambda p, t: p.tokens[t] == TO and follows(p.tokens, t, BOTTLE),
        'prompts, on " to" after " bottle"',
    ),
    "repeated name": (
        False,
        lambda p, t: p.tokens[t] in NAMES and p.tokens[t] in p.tokens[:t],
        "prompts, on a capitalised word seen earlier in the prompt",
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
    assert "pair of tokens seen earlier" in text and "[AP 1.00, covers 100%, at 10 places]" in text


@pytest.mark.parametrize("density", [0.05, 0.3])
def test_shuffled_activations_get_rules_worth_nothing(density):
    corpus, vocabulary = Corpus.of(make_prompts(120)), Vocabulary(Tokenizer())
    facts = Facts.of(corpus, vocabulary)
    gains = []
    for seed in range(12):
        shuffled = np.random.default_rng(seed).random(len(corpus.tokens)) < density
        activity = activity_where(corpus, shuffled, seed)
        rule = mine_rule(facts, activity)
        assert rule is not None
        gains.append(rule.held_out.above_chance or 0.0)
        if not rule.conditions:
            assert "by no rule found" in label(rule, activity, facts, vocabulary)
    assert abs(float(np.mean(gains))) < 0.03


def test_a_feature_that_fires_everywhere_is_called_that():
    _, text = explain(make_prompts(), lambda p, t: t > 0)
    assert "on almost every token" in text


def test_a_noisy_rule_shows_its_quality():
    noise = np.random.default_rng(5)
    rule, text = explain(
        make_prompts(200), lambda p, t: p.roles[t] == "S2" and noise.random() < 0.55
    )
    assert "% of prompts, loosely on S2" in text
    assert rule.held_out.precision < 0.75
    assert f"[AP {rule.held_out.average_precision:.2f}, covers".replace("0.", ".") in text


@pytest.mark.parametrize(
    ("f1", "precise", "covers", "said"),
    [
        (0.8, 0.0, 0.9, "on"),
        (0.79, 0.8, 0.5, "most on"),
        (0.2, 0.95, 0.07, "strongest on"),
        (0.79, 0.79, 0.97, "loosely on"),
        (0.0, None, 0.0, "loosely on"),
    ],
)
def test_the_words_say_how_much_the_rule_says(f1, precise, covers, said):
    corpus, vocabulary = Corpus.of(make_prompts(9)), Vocabulary(Tokenizer())
    activity = activity_where(corpus, (corpus.tokens == TO) & (corpus.prompt < 6))
    known = HeldOut.of(np.zeros(0, bool), np.zeros(0), np.zeros(0))
    told = {"f1": f1, "above_chance": precise, "average_precision": precise, "coverage": covers}
    ends = [(20, ""), (6, ", at 6 places"), (1, ", at 1 place")]
    for n_holds, places in ends:
        rule = Rule(((Condition("token", (TO,)),),), replace(known, n_holds=n_holds, **told))
        text = label(rule, activity, Facts.of(corpus, vocabulary), vocabulary)
        start = f'fires in 67% of prompts, {said} " to" ['
        score = f"{precise:.2f}".removeprefix("0") if precise is not None else ""
        held = f"AP {score}, covers {covers:.0%}{places}]" if score else "not seen held out]"
        assert text == start + held


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


def test_the_parts_are_a_half_and_two_quarters_of_active_and_silent_prompts_not_by_parity():
    corpus = Corpus.of(make_prompts(80))
    activity = Activity.of(corpus, range(0, 40), [1] * 40, [1.0] * 40)
    parts = parts_of_prompts(activity)
    for some in (parts[:40], parts[40:]):
        assert np.bincount(some).tolist() == [20, 10, 10]
    for parity in (parts[::2], parts[1::2]):
        assert np.bincount(parity).min() >= 5


def test_three_active_prompts_are_one_in_each_part():
    corpus = Corpus.of(make_prompts(9))
    for three in ([0, 1, 2], [3, 6, 8], [2, 5, 7]):
        parts = parts_of_prompts(Activity.of(corpus, three, [1] * 3, [1.0] * 3))
        assert sorted(parts[three]) == [0, 1, 2]


def test_an_item_due_by_repetition_is_found_and_a_second_term_joined():
    rng = np.random.default_rng(2)
    prompts = []
    for _ in range(150):
        items = rng.permutation(np.arange(20, 26))[:4].tolist()
        filler = rng.integers(30, 60, 6).tolist()
        tokens = (*items, filler[0], items[0], *filler[1:3], 19, items[1], filler[3], 19)
        roles = ("a", "b", "c", "d", None, "e", None, None, None, "f", None, None)
        prompts.append(Prompt(tokens, roles))

    def follows_by_repetition(p, t):
        return p.tokens[t] == 19 and (p.tokens[1] if t < 10 else p.tokens[2]) == 22

    rule, text = explain(prompts, lambda p, t: p.tokens[t] == 22 or follows_by_repetition(p, t))
    assert "<22>, or on <19> where <22> is next by repetition" in text
    assert rule.held_out.average_precision == 1.0 and len(rule.terms) == 2


def test_what_a_feature_promotes_can_be_said():
    prompts = make_prompts(80, roles=False)
    corpus, vocabulary = Corpus.of(prompts), Vocabulary(Tokenizer())
    facts = Facts.of(corpus, vocabulary).with_promoted([*NAMES, DOT, 13])
    before = np.append(np.isin(corpus.tokens, (*NAMES, DOT, 13))[1:], False)
    before[corpus.ptr[1:] - 1] = False
    activity = activity_where(corpus, before)
    rule = mine_rule(facts, activity)
    assert "before a token that it raises" in label(rule, activity, facts, vocabulary)
    assert rule is not None and rule.held_out.f1 == 1.0


def test_the_two_tokens_before_are_a_family():
    corpus = Corpus.of([Prompt((3, 4, 5, 3, 4)), Prompt((3, 4, 9))])
    family = Facts.of(corpus, Vocabulary(None)).families["previous_pair"]
    there = [None if code < 0 else family.values[code] for code in family.codes]
    assert there == [None, None, (3, 4), (4, 5), (5, 3), None, None, (3, 4)]


def test_positions_without_features_have_no_say():
    prompts = make_prompts(80)
    every = Corpus.of(prompts)
    corpus = replace(every, counted=every.position > 0)
    facts = Facts.of(corpus, Vocabulary(Tokenizer()))
    rule = mine_rule(facts, activity_where(corpus, (corpus.tokens == DOT) & (corpus.position > 0)))
    assert rule is not None and rule.held_out.f1 == 1.0
    in_part = parts_of_prompts(activity_where(corpus, corpus.tokens == DOT)) == 2
    lengths = np.diff(corpus.ptr)
    assert rule.held_out.n_positions == int((lengths[in_part] - 1).sum())


def test_weights_stand_for_prompts_seen_more_than_once():
    corpus = Corpus.of(make_prompts(60))
    activity = activity_where(corpus, np.isin(corpus.tokens, (DOT, TO)))
    facts = Facts.of(corpus, Vocabulary(Tokenizer()))
    weights = np.where(np.arange(60) % 3 == 0, 4.0, 1.0)
    rule = mine_rule(facts, activity, weights)
    plain = mine_rule(facts, activity)
    assert rule is not None and plain is not None
    assert rule.held_out.prevalence != plain.held_out.prevalence
    assert rule.held_out.n_holds == plain.held_out.n_holds
    for bad, words in (([1.0], "shape"), ([0.0] * 60, "weight 0.0"), ([np.nan] * 60, "nan")):
        with pytest.raises(PieFastError, match=words):
            mine_rule(facts, activity, bad)


def test_a_rule_is_plain_values():
    rule, _ = explain(make_prompts(), lambda p, t: p.tokens[t] == TO and follows(p.tokens, t, 8))
    plain = json.loads(json.dumps(rule.to_dict(Vocabulary(Tokenizer()))))
    assert plain["text"] == '" to" after " bottle"'
    assert {c["family"] for c in plain["terms"][0]} == {"token", "previous_token"}
    assert plain["terms"][0][0]["values"] and plain["terms"][0][0]["texts"][0].startswith('"')
    assert plain["held_out"]["average_precision"] == 1.0


def test_one_or_two_active_prompts_are_too_few_to_judge_a_rule():
    prompts = make_prompts(9)
    corpus, vocabulary = Corpus.of(prompts), Vocabulary(Tokenizer())
    facts = Facts.of(corpus, vocabulary)
    end = len(prompts[4].tokens) - 1
    activity = Activity.of(corpus, [4], [end], [1.0])
    assert mine_rule(facts, activity) is None
    thing = WORDS[prompts[4].tokens[end - 1]]
    text = label(None, activity, facts, vocabulary)
    assert text == f'fires in 1 of 9 prompts, on " to" after "{thing}"'
    two = Activity.of(corpus, [4, 5], [end, 0], [1.0, 0.5])
    assert mine_rule(facts, two) is None
    text = label(None, two, facts, vocabulary)
    assert text == f'fires in 2 of 9 prompts, at its strongest on " to" after "{thing}"'


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


LEVELS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0])
ROWS = st.lists(st.tuples(st.integers(0, 4), LEVELS, st.sampled_from([1.0, 3.0])), min_size=1)


def worth(said, strength, weight) -> float:
    """What a prediction is worth, by its definition and the measures that scikit-learn checks."""
    held_out = HeldOut.of(said, strength, weight)
    if held_out.average_precision is None:
        return 0.0
    mean = (held_out.average_precision + SHARE * held_out.coverage) / (1 + SHARE)
    share = held_out.prevalence
    predicted = weight[said].sum()
    noise = (share * (1 - share) / held_out.n_fires) ** 0.5
    return (mean - share) * predicted / (predicted + FEW) - DOUBT * noise


@settings(deadline=None)
@given(ROWS, st.integers(0, 5))
def test_the_value_set_is_worth_the_best_of_those_by_mean_strength_up_to_its_cost(rows, said_code):
    codes, strength, weight = (np.asarray(column) for column in zip(*rows, strict=True))
    family, everywhere = Family(codes, tuple(range(5))), np.ones(len(rows), dtype=bool)
    said, cost = codes == said_code, 0.01
    values = best_values(family, Ranking(strength, everywhere, weight), everywhere, said, cost)
    assert bool(values) == bool((strength[~said] > 0).any())
    assert said_code not in values
    if values:
        mean = {
            code: np.average(strength[codes == code], weights=weight[codes == code])
            for code in np.unique(codes[(strength > 0) & ~said]).tolist()
        }
        bounds = sorted(mean.values(), reverse=True)
        sets = [[code for code in mean if mean[code] >= bound] for bound in bounds]
        best = max(worth(said | np.isin(codes, found), strength, weight) for found in sets)
        mine = worth(said | np.isin(codes, values), strength, weight)
        assert mine >= best - cost * (len(mean) - 1) - 1e-9


@settings(deadline=None)
@given(ROWS, st.randoms())
def test_worth_is_that_of_its_definition(rows, random):
    _, strength, weight = (np.asarray(column) for column in zip(*rows, strict=True))
    ranking = Ranking(strength, np.ones(len(rows), dtype=bool), weight)
    for _ in range(3):
        said = np.asarray([random.random() < 0.5 for _ in rows])
        expected = worth(said, strength, weight) if (strength > 0).any() else 0.0
        assert ranking.worth_of(said) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_what_is_held_out_matches_its_definitions(rows):
    said = np.asarray([a for a, _ in rows], dtype=bool)
    there = np.asarray([b for _, b in rows], dtype=bool)
    score = HeldOut.of(said, there.astype(float), np.ones(len(rows)))
    hits = sum(a and b for a, b in rows)
    assert score.precision == (hits / said.sum() if said.any() else 0)
    assert score.recall == (hits / there.sum() if there.any() else 0) == score.coverage
    total = score.precision + score.recall
    assert score.f1 == pytest.approx(2 * score.precision * score.recall / total if total else 0)
    assert (score.n_holds, score.n_fires, score.n_positions) == (said.sum(), there.sum(), len(rows))
    assert (score.average_precision is None) == (said.all() or not said.any())
