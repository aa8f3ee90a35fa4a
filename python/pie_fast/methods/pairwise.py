"""FAP-Synergy: a score of its own for each feature, plus its synergy with what is selected."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pie_fast.cost import Cost
from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods.selector import Order
from pie_fast.methods.single import as_score
from pie_fast.options import SMALLEST_POOL
from pie_fast.select import greedy_select
from pie_fast.synergy import BLOCK_ROWS, SynergyEstimator, model_calls

DIRECTIONS = {
    "noising": ("noising",),
    "denoising": ("denoising",),
    "both": ("noising", "denoising"),
}


def fap_synergy(
    ground: Ground,
    k: int,
    *,
    rank_by: str = "mean_abs",
    synergy: str = "clipped",
    bonus: Literal["mean", "sum"] = "mean",
    direction: str = "noising",
    estimator: str = "gradient-difference",
    pool: int = SMALLEST_POOL,
    synergy_prompts: int = 32,
) -> Order:
    """The paper's greedy rule by default; past its pool it goes on by score.

    Args:
        rank_by: How effects on prompts become a score.
        synergy: `clipped` at 0, or `signed`.
        bonus: `mean` over what is selected, or `sum`.
        direction: `noising`, `denoising`, or the sum of `both`.
        estimator: `gradient-difference` or `exact`.
        pool: The best so many by score are candidates; past them a selection goes on by score.
        synergy_prompts: The first so many prompts measure synergy.
    """
    if direction not in DIRECTIONS or synergy not in ("clipped", "signed"):
        raise PieFastError(
            f"direction {direction!r} and synergy {synergy!r} must be one of "
            f"{', '.join(DIRECTIONS)} and one of clipped, signed"
        )
    if pool < 1:
        raise PieFastError(f"pool is {pool}, must be at least 1")
    score = as_score(ground, ground.effects(), rank_by)
    order = np.argsort(-score, kind="stable")
    best = np.sort(order[:pool])
    matrix = sum(
        _matrix(ground, best, one, estimator, synergy_prompts) for one in DIRECTIONS[direction]
    )
    values = np.maximum(matrix, 0.0) if synergy == "clipped" else np.asarray(matrix)
    values = values.astype(np.float32)
    first = best[greedy_select(score[best], values, len(best), bonus=bonus).ids]
    rest = order[~np.isin(order, first)]
    whole = np.concatenate([first, rest])
    return whole, score[whole]


def cost(
    ground: Ground,
    k: int,
    *,
    direction: str,
    estimator: str,
    pool: int,
    synergy_prompts: int,
    **_: Any,
) -> Cost:
    """A row for each of the pool, and at most 2 runs to prepare, in every direction."""
    size = min(pool, len(ground))
    forward, backward = model_calls(estimator, size)
    if estimator == "exact":
        forward += -(-size // BLOCK_ROWS)  # each block of rows measures what nothing moves anew
    n_prompts = min(synergy_prompts, len(ground.prompts))
    rows = Cost(forward + 2, backward).times(n_prompts * len(DIRECTIONS[direction]))
    return rows + Cost(1, 1).times(len(ground.prompts))


def _matrix(
    ground: Ground, best: NDArray[np.int64], direction: str, estimator: str, n_prompts: int
) -> NDArray[np.float64]:
    def measure() -> NDArray[np.float64]:
        return SynergyEstimator(
            ground.model,
            ground.prompts[:n_prompts],
            ground.model.make_pool(ground.pool.global_ids[best].tolist()),
            ground.metric,
            ground.switches,
            estimator=estimator,
            direction=direction,
            batch_size=ground.batch_size,
            mean_of=ground.mean_of,
        ).matrix(ground.tell)

    key = ("synergy", direction, estimator, n_prompts, best.tobytes())
    return ground.once(key, measure)
