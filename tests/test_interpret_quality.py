"""Measures of rules against scikit-learn, and the control that must find nothing and can fail."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from interpret_world import DOT, TO, Tokenizer, activity_where, make_prompts
from pie_fast.errors import PieFastError
from pie_fast.interpret import Activity, Corpus, Facts, Vocabulary
from pie_fast.interpret.rules import HeldOut, Rule
from pie_fast.interpret.rules.conditions import Condition
from pie_fast.interpret.rules.control import AT_LEAST, averages, shuffled, shuffled_control
from pie_fast.interpret.rules.parts import positions_in
from pie_fast.interpret.rules.quality import rule_measures

CORPUS = Corpus.of(make_prompts(120))
FACTS = Facts.of(CORPUS, Vocabulary(Tokenizer()))


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
    assert nothing["purity_rule"].why == "there is no negative instance"
    assert nothing["purity_rule"].value is nothing["responsiveness_rule"].value is None
    assert nothing["clarity_rule"].why == "no positions with the concept were made"
    assert nothing["clarity_rule"].n_negative == int(positions_in(activity, 2).sum())
    assert nothing["detection_rule"].value == nothing["fuzzing_rule"].value == 0.5
    always = activity_where(CORPUS, CORPUS.tokens == TO)  # every prompt ends in it
    detection = rule_measures(rule_of(), FACTS, always)["detection_rule"]
    assert detection.value is None and detection.why == "there is no negative instance"


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


def test_the_control_is_zero_and_fails_where_one_part_does_all():
    corpus = Corpus.of(make_prompts(240))
    facts = Facts.of(corpus, Vocabulary(Tokenizer()))
    noise = np.random.default_rng(0).random(len(corpus.tokens)) < 0.25
    activity = activity_where(corpus, noise | (corpus.tokens == DOT))
    honest = averages(shuffled_control(facts, activity, seed=seed) for seed in range(20))
    same = averages(
        shuffled_control(facts, activity, seed=seed, parts=(2, 2, 2)) for seed in range(20)
    )
    for name in ("responsiveness_rule", "clarity_rule"):
        assert honest[name].n_runs >= 15
        assert honest[name].mean == pytest.approx(0, abs=0.03)
    for name in ("responsiveness_rule", "clarity_rule"):
        assert same[name].mean > 0.05, (honest, same)
        assert same[name].mean > 4 * same[name].standard_error


def test_the_control_needs_enough_positives():
    corpus = Corpus.of(make_prompts(12))
    facts = Facts.of(corpus, Vocabulary(Tokenizer()))
    runs = [shuffled_control(facts, activity_where(corpus, corpus.tokens == TO))]
    assert str(AT_LEAST) in runs[0]["clarity_rule"].why
    found = averages(runs)["responsiveness_rule"]
    assert (found.mean, found.standard_error, found.n_runs, found.n_without) == (None, None, 0, 1)
