"""AUROC and average precision against scikit-learn: ties, weights, missing classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from pie_fast.interpret.measures import (
    above_chance,
    auroc,
    average_precision,
    gini,
    purity,
    separation,
    why_undefined,
)

LEVELS = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.5, 3.0, 1e-30])
WEIGHTS = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(1e-3, 50.0))
ROWS = st.lists(st.tuples(LEVELS | st.floats(-5, 5), st.booleans(), WEIGHTS), max_size=30)


def columns(rows):
    scores, labels, weights = zip(*rows, strict=True) if rows else ((), (), ())
    return np.asarray(scores), np.asarray(labels, dtype=bool), np.asarray(weights)


@settings(deadline=None)
@given(ROWS, st.booleans())
def test_both_areas_equal_scikit_learn_with_ties_and_weights(rows, weighted):
    scores, labels, weights = columns(rows)
    weight = weights if weighted else np.ones(len(rows))
    handed = weights if weighted else None
    area, precision = auroc(scores, labels, handed), average_precision(scores, labels, handed)
    if weight[labels].sum() == 0 or weight[~labels].sum() == 0:
        assert area is None and precision is None and gini(scores, labels, handed) is None
        assert "no positive" in (why := why_undefined(scores, labels, handed)) or "no neg" in why
        return
    assert why_undefined(scores, labels, handed) is None
    assert area == pytest.approx(roc_auc_score(labels, scores, sample_weight=handed), abs=1e-12)
    assert gini(scores, labels, handed) == pytest.approx(2 * area - 1, abs=1e-12)
    expected = average_precision_score(labels, scores, sample_weight=handed)
    assert precision == pytest.approx(expected, abs=1e-12)


def test_all_tied_scores_are_worth_chance():
    labels = np.arange(10) < 3
    assert auroc(np.zeros(10), labels) == 0.5
    assert average_precision(np.zeros(10), labels) == pytest.approx(0.3, abs=1e-15)
    assert above_chance(0.3, 0.3) == 0 and above_chance(1.0, 0.3) == 1 and above_chance(1, 1) == 0


def test_a_missing_class_or_number_is_none_with_a_reason():
    for measured in (separation([1.0, 2.0], [True, True]), purity([1.0, 2.0], [True, True])):
        assert measured.value is None and measured.why == "there is no negative instance"
        assert (measured.n_positive, measured.n_negative) == (2, 0)
    assert separation([], []).why == "there is no positive instance"
    assert purity([math.nan, 2.0], [True, False]).why == "a score is not finite"
    assert auroc([math.inf, 2.0], [True, False]) is None


def test_measures_keep_the_sign_and_purity_turns_scores_round():
    scores, labels = [0.0, 1.0, 2.0, 3.0], [True, True, False, False]
    measured = separation(scores, labels)
    assert (measured.value, measured.signed) == (1.0, -1.0)
    assert purity(scores, labels).value == 1.0
    assert average_precision(scores, labels) == pytest.approx((1 / 3 + 2 / 4) / 2)
