"""How well scores tell two classes apart: AUROC and average precision, ties and weights included.

Most activations of a feature are exactly 0, so ties decide. AUROC counts a tied pair as half won
(mid-ranks, as the Mann-Whitney U does). Average precision steps once for each distinct score, so
tied instances enter together and their order does not matter:

    AUROC = P(score of a positive > score of a negative) + P(equal) / 2
    AP    = sum over distinct scores s, descending, of (recall_s - recall_{s-1}) * precision_s
    gini  = 2 * AUROC - 1            in [-1, 1], 0 is chance

All three equal scikit-learn's (``roc_auc_score``, ``average_precision_score``), which has no
answer where a class is missing; here that answer is None, and :func:`why_undefined` says why.
FADE (arXiv 2502.16994) builds Clarity, Responsiveness and Purity of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.interpretation import Measure

Doubles = NDArray[np.float64]


def auroc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Area under the ROC curve; None where :func:`why_undefined` has a reason.

    Args:
        scores: ``[n]`` floats.
        labels: ``[n]`` bool, True for positives.
        weights: ``[n]`` floats of at least 0; all 1 if not given.
    """
    if why_undefined(scores, labels, weights) is not None:
        return None
    positive, negative = _tally(scores, labels, weights)
    above = np.cumsum(negative) - negative  # weight of the negatives with a larger score
    lost = float(np.sum(positive * (above + negative / 2)))
    return 1.0 - lost / float(positive.sum() * negative.sum())


def gini(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """``2 * AUROC - 1`` with its sign; None where :func:`why_undefined` has a reason.

    Args:
        scores: ``[n]`` floats.
        labels: ``[n]`` bool, True for positives.
        weights: ``[n]`` floats of at least 0; all 1 if not given.
    """
    area = auroc(scores, labels, weights)
    return None if area is None else 2 * area - 1


def average_precision(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> float | None:
    """Average precision; None where :func:`why_undefined` has a reason.

    Args:
        scores: ``[n]`` floats.
        labels: ``[n]`` bool, True for positives.
        weights: ``[n]`` floats of at least 0; all 1 if not given.
    """
    if why_undefined(scores, labels, weights) is not None:
        return None
    positive, negative = _tally(scores, labels, weights)
    found = np.cumsum(positive)
    steps = positive > 0
    precision = found[steps] / (found + np.cumsum(negative))[steps]
    return float(np.sum(positive[steps] * precision) / found[-1])


def above_chance(precision: float, prevalence: float) -> float:
    """Average precision corrected for chance: ``(AP - prevalence) / (1 - prevalence)``.

    Scores that know nothing reach the prevalence of the positives; that becomes 0, and 1 stays 1.
    A prevalence of 1, where every ranking is perfect, gives 0.
    """
    return (precision - prevalence) / (1 - prevalence) if prevalence < 1 else 0.0


def why_undefined(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> str | None:
    """Why scores cannot be judged: a class is missing, or a score is no number. None if they can.

    Args:
        scores: ``[n]`` floats.
        labels: ``[n]`` bool, True for positives.
        weights: ``[n]`` floats of at least 0; all 1 if not given.
    """
    truth, weight = _arrays(labels, weights)
    for name, total in (("positive", weight[truth].sum()), ("negative", weight[~truth].sum())):
        if not total > 0:
            return f"there is no {name} instance"
    return None if np.isfinite(scores).all() else "a score is not finite"


def separation(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Measure:
    """``|2 * AUROC - 1|`` as a measure, with its sign beside it: FADE's Clarity, Responsiveness.

    Args:
        scores: ``[n]`` floats.
        labels: ``[n]`` bool, True for positives.
        weights: ``[n]`` floats of at least 0; all 1 if not given.
    """
    signed = gini(scores, labels, weights)
    value = None if signed is None else abs(signed)
    return measure(value, labels, signed=signed, why=why_undefined(scores, labels, weights))


def purity(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Measure:
    """Average precision as a measure, of negated scores where positives score lower (FADE).

    Args:
        scores: ``[n]`` floats.
        labels: ``[n]`` bool, True for positives.
        weights: ``[n]`` floats of at least 0; all 1 if not given.
    """
    signed = gini(scores, labels, weights)
    towards = -1.0 if signed is not None and signed < 0 else 1.0
    value = average_precision(towards * np.asarray(scores, dtype=np.float64), labels, weights)
    return measure(value, labels, why=why_undefined(scores, labels, weights))


def measure(
    value: float | None, labels: ArrayLike, *, signed: float | None = None, why: str | None = None
) -> Measure:
    """A measure with the number of instances it was made of.

    Args:
        value: The number, or None.
        labels: ``[n]`` bool, True for positives.
        signed: With its sign, if it has one.
        why: Why there is no value.
    """
    truth = np.asarray(labels, dtype=bool)
    n_positive = int(truth.sum())
    return Measure(value, signed, n_positive, len(truth) - n_positive, why)


def _tally(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None
) -> tuple[Doubles, Doubles]:
    """Weight of the positives and of the negatives at each distinct score, largest score first."""
    truth, weight = _arrays(labels, weights)
    distinct, group = np.unique(-np.asarray(scores, dtype=np.float64), return_inverse=True)
    positive, negative = np.zeros(len(distinct)), np.zeros(len(distinct))
    np.add.at(positive, group, weight * truth)
    np.add.at(negative, group, weight * ~truth)
    return positive, negative


def _arrays(labels: ArrayLike, weights: ArrayLike | None) -> tuple[NDArray[np.bool_], Doubles]:
    truth = np.asarray(labels, dtype=bool)
    weight = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=np.float64)
    return truth, weight
