"""Measures of rules against scikit-learn, and the control that must find nothing and can fail."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from interpret_world import DOT, TO, Tokenizer, activity_where, make_prompts
from pie_fast.errors import PieFastError
from pie_fast.interpret import Activity, Corpus, Facts, Vocabulary
from pie_fast.interpret.rules import HeldOut, Rule, mine_rule
from pie_fast.interpret.rules.conditions import Condition
from pie_fast.interpret.rules.control import AT_LEAST, averages, shuffled, shuffled_control
from pie_fast.interpret.rules.edits import edited
from pie_fast.interpret.rules.parts import positions_in
from pie_fast.interpret.rules.quality import rule_measures

CORPUS = Corpus.of(make_prompts(120))
VOCABULARY = Vocabulary(Tokenizer())
FACTS = Facts.of(CORPUS, VOCABULARY)


def rule_of(*conditions):
    return Rule((conditions,), HeldOut.of(np.zeros(0, bool), np.zeros(0), np.zeros(0)))


def noisy(seed=0, sign=1.0):
    """Fires on most full stops, and at some other places; some values are negative."""
    rng = np.random.default_rng(seed)
    where = np.where(CORPUS.tokens == DOT, rng.random(len(CORPUS.tokens)) < 0.8, False)
    where |= rng.random(len(where)) < 0.1
    at = np.flatnonzero(where)
    values = sign * rng.normal(1.0, 0.7, len(at)).astype(np.float32)
    return Activity.of(CORPUS, CORPUS.prompt[at], CORPUS.position[at], values)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_measures_equal_scikit_learn(sign, weighted):
    activity, rule = noisy(sign=sign), rule_of(Condition("token", (DOT,)))
    weights = np.random.default_rng(3).uniform(0.5, 4.0, CORPUS.n_prompts) if weighted else None
    concept = sign * np.asarray([0.0, 0.5, 1.0, 2.0])
    found = rule_measures(rule, FACTS, activity, concept=concept, weights=weights)
    at = positions_in(activity, 2)
    scores = np.zeros(len(CORPUS.tokens))
    scores[activity.at] = activity.activation
    scores, labels = scores[at], CORPUS.tokens[at] == DOT
    weight = np.ones(len(scores)) if weights is None else weights[CORPUS.prompt[at]]
    area = 2 * roc_auc_score(labels, scores, sample_weight=weight) - 1
    assert np.sign(area) == sign
    responsive = found["responsiveness_rule"]
    assert responsive.signed == pytest.approx(area, abs=1e-12)
    assert responsive.value == pytest.approx(abs(area), abs=1e-12)
    assert (responsive.n_positive, responsive.n_negative) == (labels.sum(), (~labels).sum())
    precision = average_precision_score(labels, sign * scores, sample_weight=weight)
    assert found["purity_rule"].value == pytest.approx(precision, abs=1e-12)
    made = np.concatenate([np.ones(4, bool), np.zeros(len(scores), bool)])
    area = roc_auc_score(
        made, np.append(concept, scores), sample_weight=np.append(np.ones(4), weight)
    )
    assert found["clarity_rule"].signed == pytest.approx(2 * area - 1, abs=1e-12)
    prompts = np.unique(CORPUS.prompt[at])
    said, true = (
        np.asarray([x[CORPUS.prompt[at] == p].any() for p in prompts])
        for x in (labels, activity.fires[at])
    )
    each = None if weights is None else weights[prompts]
    expected = balanced_accuracy_score(true, said, sample_weight=each)
    assert found["detection_rule"].value == pytest.approx(expected, abs=1e-12)


def test_fuzzing_takes_as_many_silent_positions_of_the_same_prompts():
    activity = noisy()
    found = rule_measures(rule_of(Condition("token", (DOT,))), FACTS, activity)["fuzzing_rule"]
    n_fires = int((activity.fires & positions_in(activity, 2)).sum())
    assert found.n_positive == found.n_negative == n_fires
    assert found.value is not None and 0.6 < found.value < 1.0


def test_a_perfect_rule_is_perfect_and_an_empty_one_undefined_with_reasons():
    activity = activity_where(CORPUS, CORPUS.tokens == DOT)
    perfect = rule_measures(rule_of(Condition("token", (DOT,))), FACTS, activity, concept=[9.0])
    assert {m.value for m in perfect.values()} == {1.0}
    nothing = rule_measures(rule_of(), FACTS, activity)
    assert nothing["purity_rule"].why == "the rule holds at every position"
    assert nothing["responsiveness_rule"].why == "the rule holds at every position"
    assert nothing["purity_rule"].value is nothing["responsiveness_rule"].value is None
    assert nothing["clarity_rule"].why == "no prompt was made to meet the rule"
    assert nothing["clarity_rule"].n_negative == int(positions_in(activity, 2).sum())
    assert nothing["detection_rule"].value == nothing["fuzzing_rule"].value == 0.5
    always = activity_where(CORPUS, CORPUS.tokens == TO)  # every prompt ends in it
    detection = rule_measures(rule_of(), FACTS, always)["detection_rule"]
    assert detection.value is None and detection.why == "the feature fires in every prompt"
    never = rule_measures(rule_of(Condition("token", (99,))), FACTS, always, concept=[])
    for name in ("responsiveness_rule", "purity_rule"):
        assert never[name].why == "the rule holds nowhere"
    assert never["clarity_rule"].why == "no prompt was made to meet the rule"
    silent = rule_measures(rule_of(), FACTS, activity_where(CORPUS, CORPUS.tokens == 99))
    assert silent["detection_rule"].why == "the feature fires in no prompt"
    assert silent["fuzzing_rule"].why == "the feature fires nowhere"
    every = activity_where(CORPUS, CORPUS.tokens >= 0)
    dense = rule_measures(rule_of(), FACTS, every)["fuzzing_rule"]
    assert dense.why == "the feature fires at every position of the prompts it fires in"
    broken = rule_measures(rule_of(Condition("token", (DOT,))), FACTS, always, concept=[np.nan])
    assert broken["clarity_rule"].why == "a score is not finite"


def test_facts_of_another_corpus_are_refused():
    other = Corpus.of(make_prompts(4))
    with pytest.raises(PieFastError, match="different corpora"):
        rule_measures(rule_of(), Facts.of(other, Vocabulary(None)), noisy())


def test_shuffling_moves_every_value_over_counted_positions_only():
    corpus = Corpus(CORPUS.tokens, CORPUS.ptr, counted=CORPUS.position > 2)
    activity = activity_where(corpus, (corpus.tokens == DOT) & (corpus.position > 2))
    moved = shuffled(activity, 1)
    assert sorted(moved.activation) == sorted(activity.activation)
    assert corpus.position[moved.at].min() > 2
    assert not np.array_equal(moved.at, activity.at)


def noisy_world():
    corpus = Corpus.of(make_prompts(240))
    noise = np.random.default_rng(0).random(len(corpus.tokens)) < 0.25
    activity = activity_where(corpus, noise | (corpus.tokens == DOT))
    return Facts.of(corpus, VOCABULARY), activity, VOCABULARY


def test_the_control_is_zero_and_fails_where_one_part_does_all():
    world = noisy_world()
    runs = [shuffled_control(*world, seed=seed) for seed in range(40)]
    honest = averages(runs)
    same = averages(shuffled_control(*world, seed=seed, parts=(2, 2, 2)) for seed in range(20))
    assert honest["responsiveness_rule"].n_runs >= 30
    for found in honest.values():
        assert found.n_runs >= 15
        assert found.mean == pytest.approx(0, abs=0.03)
    failed = same["responsiveness_rule"]
    assert failed.mean > 0.05 and failed.mean > 4 * failed.standard_error, (honest, same)
    # clarity is of positions where the rule did not hold: those that it was fitted to play no part
    assert -0.05 < same["clarity_rule"].mean < 0.01, (honest, same)
    pairs = [[measured.signed for measured in run.values()] for run in runs]
    both = np.asarray([pair for pair in pairs if None not in pair])
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.7, "two controls, not one twice"


def test_clarity_of_the_control_is_of_edited_positions_with_their_own_activation():
    facts, activity, vocabulary = noisy_world()
    found = shuffled_control(facts, activity, vocabulary, seed=5)["clarity_rule"]
    world = shuffled(activity, 5)
    rule = mine_rule(facts, world, at_least=AT_LEAST)
    made = edited(rule, facts, world, vocabulary, 2 * AT_LEAST, seed=5)
    assert not rule.holds(facts)[list(made.at)].any()
    scores = np.zeros(len(facts.corpus.tokens))
    scores[world.at] = world.activation
    natural = scores[positions_in(world, 2)]
    labels = np.arange(len(made.at) + len(natural)) < len(made.at)
    area = roc_auc_score(labels, np.append(scores[list(made.at)], natural))
    assert found.signed == pytest.approx(2 * area - 1, abs=1e-12)
    assert found.n_positive == 2 * AT_LEAST


def test_the_control_needs_enough_positives():
    corpus = Corpus.of(make_prompts(12))
    facts = Facts.of(corpus, VOCABULARY)
    activity = activity_where(corpus, corpus.tokens == TO)
    runs = [shuffled_control(facts, activity, VOCABULARY)]
    assert str(AT_LEAST) in runs[0]["clarity_rule"].why
    found = averages(runs)["responsiveness_rule"]
    assert (found.mean, found.standard_error, found.n_runs, found.n_without) == (None, None, 0, 1)
    few = shuffled_control(*noisy_world(), n_concept=7, seed=5)["clarity_rule"]
    assert few.value is None and few.why == f"7 positives; the control needs {AT_LEAST}"
