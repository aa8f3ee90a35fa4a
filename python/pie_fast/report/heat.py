"""The synergies among the kept features as an ordered square, and the strongest pairs."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.csr import triplets
from pie_fast.report.ordering import cluster_order
from pie_fast.report.run import Run
from pie_fast.types import FeatureId

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pie_fast.synergy_matrix import SynergyMatrix

#: the colours end at this quantile of the magnitudes other than 0: a few pairs are far larger
_COLOURED = 0.99

#: int16 levels on each side of 0
_LEVELS = 32767

#: what a pair's synergy says above and below 0, by the direction of the ablation
_MEANINGS = {
    "noising": ("back each other up (either does)", "need each other"),
    "denoising": ("need each other", "are redundant (either does)"),
}

Pair = tuple[FeatureId, FeatureId, float]


@dataclass(frozen=True)
class Heat:
    """A square of pairs.

    Attributes:
        features: ``[n]`` in the order drawn.
        starts: Where in it each cluster begins.
        synergy: ``[n, n]`` float32, the diagonal NaN.
        redundancy: ``[n, n]`` float32 in the same order, or None.
        strongest: Pairs of the largest and of the lowest synergy, each by magnitude.
        about: How the values were made.
        meanings: What two features do whose synergy is above 0, and below.
    """

    features: tuple[FeatureId, ...]
    starts: tuple[int, ...]
    synergy: NDArray[np.float32]
    redundancy: NDArray[np.float32] | None
    strongest: tuple[list[Pair], list[Pair]]
    about: str
    meanings: tuple[str, str]


def synergy_heat(run: Run, features: list[FeatureId], n_pairs: int = 8) -> Heat | None:
    """The square of the features that the run's synergy matrix has; None where there are none.

    Clusters end where the mean synergy between two groups falls below the mean of the positive
    synergies. Pairs that are not known count as 0.
    """
    matrix, dump = run.synergy, run.dump
    if matrix is None or dump is None:
        return None
    ids = np.array(sorted({f.to_global(dump.n_features) for f in features}), dtype=np.int64)
    at = np.searchsorted(matrix.pool, ids[np.isin(ids, matrix.pool)])
    if len(at) < 2:
        return None
    values = _dense(matrix)[np.ix_(at, at)]
    np.fill_diagonal(values, 0)
    positive = values[values > 0]
    order, starts = cluster_order(values, float(positive.mean()) if positive.size else np.inf)
    found = [FeatureId.from_global(matrix.pool[at[i]], dump.n_features) for i in order]
    square = values[np.ix_(order, order)]
    redundancy = None
    if matrix.redundancy is not None:
        redundancy = matrix.redundancy[np.ix_(at[order], at[order])].astype(np.float32)
        np.fill_diagonal(redundancy, np.nan)
    strongest = _strongest(found, square, n_pairs)
    np.fill_diagonal(square, np.nan)
    stats = matrix.stats(0)
    about = (
        f"{matrix.direction}, {matrix.estimator}, {matrix.form}, mean of {matrix.n_prompts} "
        f"prompts; {stats.n_known:,} of {stats.n_pairs:,} pairs of the pool are known"
    )
    meanings = _MEANINGS[matrix.direction]
    return Heat(tuple(found), tuple(starts), square, redundancy, strongest, about, meanings)


def limit(square: NDArray[np.float32]) -> float:
    """The magnitude at which the colours end; 1 for a square of zeros."""
    magnitudes = np.abs(square[np.isfinite(square) & (square != 0)])
    return float(np.quantile(magnitudes, _COLOURED)) if magnitudes.size else 1.0


def packed(square: NDArray[np.float32]) -> dict[str, Any]:
    """A square for the page: int16 in base64, with what a level is worth; NaN is -32768."""
    largest = float(np.nanmax(np.abs(square), initial=0.0)) or 1.0
    levels = np.round(square / largest * _LEVELS)
    levels[~np.isfinite(levels)] = -_LEVELS - 1
    data = levels.astype("<i2").tobytes()
    return {
        "data": base64.b64encode(data).decode(),
        "step": largest / _LEVELS,
        "limit": limit(square),
    }


def partners(heat: Heat, n: int) -> dict[FeatureId, list[tuple[FeatureId, float]]]:
    """The ``n`` other features of largest ``|synergy|`` of each feature; zeros never."""
    magnitude = np.nan_to_num(np.abs(heat.synergy), nan=-1.0)
    best = np.argsort(-magnitude, axis=1, kind="stable")[:, :n]
    return {
        feature: [
            (heat.features[j], float(heat.synergy[i, j])) for j in best[i] if magnitude[i, j] > 0
        ]
        for i, feature in enumerate(heat.features)
    }


def _dense(matrix: SynergyMatrix) -> NDArray[np.float32]:
    if not isinstance(matrix.values, tuple):
        return np.array(matrix.values, dtype=np.float32)
    dense = np.zeros((len(matrix), len(matrix)), dtype=np.float32)
    rows, columns, values = triplets(matrix.values)
    dense[rows, columns] = values
    return dense


def _strongest(
    features: list[FeatureId], square: NDArray[np.float32], n: int
) -> tuple[list[Pair], list[Pair]]:
    first, second = np.triu_indices(len(features), 1)
    values = square[first, second]
    order = np.argsort(values, kind="stable")

    def pairs(at: NDArray[np.int64]) -> list[Pair]:
        return [(features[first[i]], features[second[i]], float(values[i])) for i in at]

    highest = [i for i in order[::-1][:n] if values[i] > 0]
    lowest = [i for i in order[:n] if values[i] < 0]
    return pairs(np.array(highest, np.int64)), pairs(np.array(lowest, np.int64))
