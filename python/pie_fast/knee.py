"""The knee of the fidelity curve: the budget from which on a further feature buys clearly less.

    y(K) = log mean KL(model || circuit of the first K)

from the empty circuit to the first K that leaves nothing worth having (mean KL <= `FLOOR`), or to
the largest K allowed. The knee is the K where the curve lies farthest below the chord between its
ends, both axes scaled to 0..1 (Kneedle: Satopaa, Albrecht, Irwin and Raghavan 2011, for a convex
falling curve, without smoothing). Where that distance is small the curve is a line, as a KL that
halves with every so many features is: then there is no knee, and `choose_knee` says so.

A knee is no promise: it says where the curve turns, and fidelity may be low there.

A bootstrap over prompts gives the interval of K, and the share of resamples that have a knee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.behaviors import Prompt
from pie_fast.budget import N_BOOTSTRAP, Order, Progress, kl_by_budget
from pie_fast.errors import BudgetError
from pie_fast.evaluate import fidelity
from pie_fast.model import Replacer, Switches
from pie_fast.slots import Slots

#: nats of mean KL; a curve ends where this is reached
FLOOR = 1e-3

#: a curve that nowhere lies farther below its chord, of height 1, has no knee
LEAST_DISTANCE = 0.05

#: KLs below are rounding, and their logarithm would be noise
_TINY = 1e-12


@dataclass(frozen=True)
class KneePoint:
    """One budget of the curve: K, mean KL, and fidelity."""

    budget: int
    mean_kl: float
    fidelity: float


@dataclass(frozen=True)
class KneeChoice:
    """The knee of a curve, and the curve.

    Attributes:
        budget: K of the knee.
        interval: Where the K of the knee is with `confidence`, over resampled prompts.
        confidence: As asked for.
        distance: How far the knee lies below the chord, whose height is 1.
        share: Of resamples whose curve has a knee.
        n_prompts: Over which the curve was measured.
        tried: Every budget of the curve, ascending.
    """

    budget: int
    interval: tuple[int, int]
    confidence: float
    distance: float
    share: float
    n_prompts: int
    tried: tuple[KneePoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `result.json` holds it."""
        return asdict(self)


def choose_knee(
    model: Replacer,
    order: Order | Sequence[int] | NDArray[np.integer],
    prompts: Sequence[Prompt],
    largest: int | None = None,
    *,
    confidence: float = 0.95,
    switches: Switches | None = None,
    mean_of: Sequence[Prompt] = (),
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
    slots: Slots | None = None,
) -> KneeChoice:
    """The knee of the curve of an order of features; one forward pass a budget of `budgets`.

    Args:
        model: The replacement model.
        order: Global feature ids, best first, or a function of k that gives the first k. Ids of
            nodes where there are slots.
        prompts: Held-out prompts.
        largest: Nothing beyond is tried; needed where `order` is a function.
        confidence: Of the interval, and the least share of resamples that must have a knee;
            between 0.5 and 1.
        switches: Baseline and the rest; the default `Switches` when None.
        mean_of: Prompts that `baseline="mean"` averages over; `prompts` when empty.
        batch_size: Prompts a batch.
        seed: Of the bootstrap.
        progress: Called after each budget, with how many were tried and the most there can be.
        slots: Of the nodes, see `pie_fast.nodes`.

    Raises:
        BudgetError: The curve has no knee, or not surely; the message says which.
        BehaviorError: There are no prompts.
        PieFastError: Confidence out of range.
    """
    kl_at, largest = kl_by_budget(
        model, order, prompts, largest, confidence, switches, mean_of, batch_size, slots
    )
    grid, rows = budgets(largest), []
    for k in grid:
        rows.append(kl_at(k))
        if progress is not None:
            progress(len(rows), len(grid))
        if rows[-1].mean() <= FLOOR:
            break
    return knee_of(grid[: len(rows)], np.stack(rows), confidence=confidence, seed=seed)


def budgets(largest: int) -> list[int]:
    """0, then steps of 5 or of a tenth, as whole fives, where that is more, up to `largest`."""
    found = [0]
    while found[-1] < largest:
        step = max(5, found[-1] // 50 * 5)
        found.append(min(found[-1] + step, largest))
    return found


def knee_of(
    ks: Sequence[int], kl: ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> KneeChoice:
    """The knee of a measured curve, see `choose_knee`.

    Args:
        ks: Budgets, ascending.
        kl: `[len(ks), n_prompts]`, KL of each prompt.
        confidence: Of the interval.
        seed: Of the bootstrap.

    Raises:
        BudgetError: There is no knee.
    """
    rows = np.asarray(kl, dtype=np.float64)
    n_prompts = rows.shape[1]
    (place,), (distance,) = knees(ks, rows.mean(1)[None])
    if distance <= LEAST_DISTANCE:
        raise BudgetError(
            f"the curve from K={ks[0]} to K={ks[-1]} has no knee: it lies at most {distance:.3f} "
            f"of its height below its chord ({LEAST_DISTANCE:g} is needed); every feature buys "
            f"about as much as the one before, so give a budget or a target fidelity"
        )
    draws = np.random.default_rng(seed).integers(0, n_prompts, (N_BOOTSTRAP, n_prompts))
    places, distances = knees(ks, np.stack([rows[:, draw].mean(1) for draw in draws]))
    has = distances > LEAST_DISTANCE
    share = float(has.mean())
    if share < confidence:
        raise BudgetError(
            f"the curve from K={ks[0]} to K={ks[-1]} may have no knee: on {share:.0%} of the "
            f"resampled prompts it has one, {confidence:.0%} are needed; give a budget or a "
            f"target fidelity"
        )
    ends = np.quantile(
        np.asarray(ks)[places[has]],
        [(1 - confidence) / 2, (1 + confidence) / 2],
        method="closest_observation",
    )
    mean = rows.mean(1).tolist()
    tried = tuple(KneePoint(k, m, fidelity(m)) for k, m in zip(ks, mean, strict=True))
    low, high = (int(end) for end in ends)
    return KneeChoice(ks[place], (low, high), confidence, float(distance), share, n_prompts, tried)


def knees(ks: Sequence[int], mean_kl: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where each of several curves over the same budgets has its knee.

    Args:
        ks: Budgets, ascending.
        mean_kl: `[n_curves, len(ks)]`.

    Returns:
        Places in `ks` and distances below the chord, `[n_curves]` each; 0 and 0 for a curve that
        does not fall or has fewer than 3 points.
    """
    y = np.log(np.maximum(np.asarray(mean_kl, dtype=np.float64), _TINY))
    if len(ks) < 3:
        return np.zeros(len(y), np.int64), np.zeros(len(y))
    x = (np.asarray(ks, dtype=np.float64) - ks[0]) / (ks[-1] - ks[0])
    height = y[:, :1] - y[:, -1:]
    falls = height > 0
    below = np.where(falls, 1 - (y - y[:, -1:]) / np.where(falls, height, 1.0) - x, 0.0)
    place = below.argmax(1)
    return place, below[np.arange(len(y)), place]
