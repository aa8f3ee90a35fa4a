"""The four numbers of FADE, of activations and ratings (arXiv 2502.16994).

    Clarity        |2 AUROC - 1| of written sequences that express it against all natural ones
    Responsiveness |2 AUROC - 1| of natural sequences rated 2 against those rated 0
    Purity         average precision of the same two, of -a where the rated-2 ones are lower
    Faithfulness   max(max_m R_m - R_0, 0) / (1 - R_0)

`a` is a sequence's activation where `|activation|` is largest, its sign kept. `R_m` is the share of
continuations that express the description when the feature is steered to m times its largest
activation; `R_0` is the feature ablated, not the model left alone. The first three do not see a
sign: a feature that is silent on its concept, and nowhere else, scores 1. `Measure.signed` of the
first two shows it.

Beside the published code: percentiles are of ranks, as most activations of a feature are exactly 0,
and what is not defined is None with its reason. numpy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.errors import PieFastError
from pie_fast.interpret.measures import purity, separation
from pie_fast.interpretation import Measure

#: bins of rank that the rated sequences are drawn from, equally many from each
PERCENTILES = (0, 50, 75, 95, 100)

#: of 500 rated sequences, those that are the strongest ones
TOP_SHARE = 52 / 500


@dataclass(frozen=True)
class Faithful:
    """Faithfulness and what it was made of.

    Attributes:
        measure: The number.
        shares: By factor `R_m`, None where nothing was rated.
        best: The factor of the largest share, the one nearest to 0 of equals; None where there is
            no number.
    """

    measure: Measure
    shares: Mapping[float, float | None] = field(default_factory=dict)
    best: float | None = None


def rated_subset(activations: ArrayLike, n: int = 500, *, seed: int = 0) -> NDArray[np.int64]:
    """Which natural sequences are rated: some of every strength, and the strongest.

    Equally many at even ranks of each bin of `PERCENTILES`, 448 in all of 500, and the 52 with the
    largest activations; equally active ones in a random order.

    Args:
        activations: `[n_sequences]`, `a(s)`.
        n: At most so many.
        seed: Of the order of equally active ones.

    Returns:
        `[at most n]` int64, ascending, none twice.
    """
    values = finite(activations, None)
    among_equals = np.random.default_rng(seed).permutation(len(values))
    order = np.lexsort((among_equals, values))
    n_top = round(n * TOP_SHARE)
    each = (n - n_top) // (len(PERCENTILES) - 1)
    edges = [len(order) * percentile // 100 for percentile in PERCENTILES]
    ranks = [np.arange(max(len(order) - n_top, 0), len(order))]
    for low, high in itertools.pairwise(edges):
        k = min(each, high - low)
        ranks.append(low + (2 * np.arange(k) + 1) * (high - low) // (2 * max(k, 1)))
    chosen: NDArray[np.int64] = np.unique(order[np.concatenate(ranks)])
    return chosen


def clarity(natural: ArrayLike, written: ArrayLike, *, least_written: int = 1) -> Measure:
    """Written sequences against all natural ones, which are not cleaned of the concept.

    Args:
        natural, written: `[n]` and `[m]`, `a(s)`.
        least_written: Fewer than so many written ones give no number.
    """
    scores = np.concatenate([np.asarray(natural, np.float64), np.asarray(written, np.float64)])
    labels = np.arange(len(scores)) >= np.size(natural)
    found = separation(scores, labels)
    if found.n_positive < least_written or found.n_positive == 0:
        return replace(found, value=None, signed=None, why="too few written texts")
    return found


def responsiveness(
    activations: ArrayLike, ratings: Sequence[int | None]
) -> tuple[Measure, Measure]:
    """Responsiveness and Purity of natural sequences rated 2 against 0; 1 and None are left out.

    Args:
        activations: `[n]`, `a(s)`.
        ratings: `[n]`.
    """
    rating = np.array([-1 if r is None else r for r in ratings], dtype=np.int64)
    used = (rating == 0) | (rating == 2)
    scores, labels = np.asarray(activations, dtype=np.float64)[used], rating[used] == 2
    pair = separation(scores, labels), purity(scores, labels)
    for label, what in ((True, 2), (False, 0)):
        if not (labels == label).any():
            why = f"no sequence was rated {what}"
            return replace(pair[0], value=None, why=why), replace(pair[1], value=None, why=why)
    return pair


def passes(clarity: Measure, responsiveness: Measure, gate: float = 0.5) -> bool:
    """Whether Faithfulness is looked at; not where one of the two has no number."""
    return all(m.value is not None and m.value >= gate for m in (clarity, responsiveness))


def faithfulness(
    shares: Mapping[float, float | None], *, n_positive: int = 0, n_negative: int = 0
) -> Faithful:
    """How much more often the steered model than the ablated one expresses the concept.

    Args:
        shares: By factor `R_m`, 0 among them; None where nothing could be rated.
        n_positive, n_negative: Continuations with and without the concept.

    Raises:
        PieFastError: Factor 0 is missing, or a share is not from 0 to 1.
    """
    check_ablated(shares)
    known = {m: share for m, share in shares.items() if share is not None}
    for m, share in known.items():
        if not 0 <= share <= 1:
            raise PieFastError(f"the share at factor {m:g} is {share}, must be from 0 to 1")

    def none(why: str) -> Faithful:
        return Faithful(Measure(None, None, n_positive, n_negative, why), shares)

    ablated = known.get(0.0)
    if ablated is None:
        return none("no continuation of the ablated feature was rated")
    if len(known) == 1:
        return none("no continuation of the steered feature was rated")
    if ablated == 1:
        return none("the ablated feature's continuations all express it (R_0 = 1)")
    best = max(known, key=lambda m: (known[m], -abs(m)))
    value = max(known[best] - ablated, 0.0) / (1 - ablated)
    return Faithful(Measure(value, None, n_positive, n_negative), shares, best)


def with_zero(factors: Sequence[float]) -> tuple[float, ...]:
    """The factors with 0 before them where it is missing."""
    return tuple(factors) if 0 in factors else (0.0, *factors)


def check_ablated(by_factor: Mapping[float, Any]) -> None:
    """Refuse factors without 0.

    Raises:
        PieFastError: With those that there are.
    """
    if 0 not in by_factor:
        raise PieFastError(f"factors are {sorted(by_factor)}, must have 0, the ablated feature")


def finite(activations: ArrayLike, n: int | None) -> NDArray[np.float64]:
    """Activations as `[n]` float64, of any length of at least 1 where `n` is None.

    Raises:
        PieFastError: Another shape, or one that is not finite.
    """
    values = np.asarray(activations, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or (n is not None and len(values) != n):
        wanted = "[n] of at least 1" if n is None else f"[{n}]"
        raise PieFastError(f"activations have shape {values.shape}, must be {wanted}")
    if not np.isfinite(values).all():
        raise PieFastError("an activation is not finite")
    return values
