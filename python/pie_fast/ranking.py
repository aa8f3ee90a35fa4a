"""Scores of features, the pool of the best of them, and its greedy reranking.

The additions run in the order of :mod:`pie_fast.reference`, so that the two agree to the last
bit and ties stay ties: numpy's ``sum`` adds pairwise, ``add.accumulate`` one after the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from pie_fast.attributed import as_float64, gradient_and_value, is_active, n_rows
from pie_fast.errors import PieFastError
from pie_fast.options import Settings, check_enough, check_finite
from pie_fast.patching import Patching
from pie_fast.protocols import Feature, ModelLike, Ranking, SupportsFapScores, SupportsPool
from pie_fast.select import greedy_select, top_k

if TYPE_CHECKING:
    from pie_fast.select import Bonus


def rank_scores(
    features: Sequence[Feature], patching: Patching, settings: Settings
) -> NDArray[np.float64]:
    """``[n]`` float64: the score that ranks each feature.

    Raises:
        PieFastError: A score is not finite.
    """
    model, prompts = patching.model, patching.prompts
    if not features:
        return np.zeros(0)
    if settings.importance == "patching":
        if settings.rank_by == "mean_abs":
            scores = patching.mean_absolute(features)
        else:
            scores = patching.singles(features)
    elif isinstance(model, SupportsFapScores):
        scores = _from_effects(model, features, prompts, settings.rank_by)
    else:
        scores = _from_arrays(model, features, len(prompts), settings.rank_by)
    for feature, score in zip(features, scores.tolist(), strict=True):
        check_finite(score, feature)
    return np.abs(scores) if settings.rank_by == "abs" else scores


def best_active(patching: Patching, size: int, settings: Settings) -> Ranking:
    """The ``size`` active features of largest score; fewer where fewer are active."""
    model = patching.model
    if isinstance(model, SupportsPool):
        ranking = model.pool(
            patching.prompts,
            size,
            importance=settings.importance,
            rank_by=settings.rank_by,
            direction=settings.direction,
        )
        return Ranking(*ranking)
    active = [feature for feature in sorted(set(model.clt_features)) if is_active(feature, model)]
    scores = rank_scores(active, patching, settings)
    best = top_k(scores, min(size, len(active))).tolist()
    return Ranking([active[i] for i in best], scores[best].tolist(), len(active))


def pool_of(patching: Patching, budget: int, size: int, settings: Settings) -> dict[Feature, float]:
    """The ``size`` best active features with their scores, best first."""
    if budget == 0:
        return {}
    ranking = best_active(patching, size, settings)
    check_enough(budget, ranking.n_active, "active features")
    return dict(zip(ranking.features, ranking.scores, strict=True))


def rerank(
    features: set[Feature],
    patching: Patching,
    k: int,
    settings: Settings,
    known: dict[Feature, float] | None = None,
) -> list[Feature]:
    """Greedy selection, in the order selected; ``known`` scores are not computed again."""
    if k == 0:
        return []
    ordered = sorted(features)
    scores: NDArray[np.float64]
    if known is None:
        scores = rank_scores(ordered, patching, settings)
    else:
        scores = np.array([known[feature] for feature in ordered], dtype=np.float64)
    synergies = patching.synergies(ordered, settings)
    selection = greedy_select(scores, synergies, k, bonus=cast("Bonus", settings.bonus))
    return [ordered[i] for i in selection.ids.tolist()]


def accumulate(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over the last axis, one addition after the other, starting from 0."""
    start = np.zeros((*terms.shape[:-1], 1))
    with np.errstate(all="ignore"):  # what is not finite is refused by name, later
        sums = np.add.accumulate(np.concatenate([start, terms], axis=-1), axis=-1)[..., -1]
    return np.asarray(sums, dtype=np.float64)


def _from_effects(
    model: SupportsFapScores, features: Sequence[Feature], prompts: Any, rank_by: str
) -> NDArray[np.float64]:
    """Scores from ``[n_features, n_prompts]`` effects that the model computes itself."""
    effects = as_float64(model.fap_scores(features, prompts))
    if effects.shape != (len(features), len(prompts)):
        raise PieFastError(
            f"FAP scores of {len(features)} features on {len(prompts)} prompts "
            f"came with shape {effects.shape}"
        )
    terms = np.abs(effects) if rank_by == "mean_abs" else effects
    return accumulate(terms) / len(prompts)


def _from_arrays(
    model: ModelLike, features: Sequence[Feature], n_prompts: int, rank_by: str
) -> NDArray[np.float64]:
    """Scores from the features' own gradients and values, features of one shape together."""
    scores = np.zeros(len(features))
    by_shape: dict[tuple[int, ...], list[tuple[int, NDArray[np.float64]]]] = defaultdict(list)
    for i, feature in enumerate(features):
        gradient, value = gradient_and_value(feature, model)
        with np.errstate(all="ignore"):
            by_shape[gradient.shape].append((i, gradient * value))
    for shape, members in by_shape.items():
        terms = np.stack([product for _, product in members])
        rows = n_rows(shape, n_prompts) if rank_by == "mean_abs" else 1
        shares = accumulate(terms.reshape(len(members), rows, -1))
        if rank_by == "mean_abs":
            shares = np.abs(shares)
        scores[[i for i, _ in members]] = accumulate(shares)
    return scores
