"""Selectors that give every feature one score of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods.selector import Order, ranked


def at_random(ground: Ground, k: int) -> Order:
    """Active features in random order."""
    order = np.random.default_rng(ground.seed).permutation(len(ground))
    return order, np.zeros(len(order))


def magnitude(ground: Ground, k: int) -> Order:
    """Largest mean activation."""
    return ranked(ground.magnitudes())


def fap(ground: Ground, k: int, *, rank_by: str = "mean_abs", gradient: str = "full") -> Order:
    """Largest first-order effect at the model itself."""
    return ranked(as_score(ground, ground.effects(gradient), rank_by))


def relp(ground: Ground, k: int, *, rank_by: str = "mean_abs", patterns: str = "full") -> Order:
    """The same by RelP's rule of the gradient.

    Args:
        rank_by: How effects on prompts become a score.
        patterns: Of attention: `full` differentiates them, `constant` does not (the AH rule).

    Raises:
        PieFastError: Unknown `rank_by` or `patterns`.
    """
    if patterns not in ("full", "constant"):
        raise PieFastError(f"patterns is {patterns!r}, must be full or constant")
    return fap(ground, k, rank_by=rank_by, gradient="relp" if patterns == "full" else "relp-ah")


def gim(ground: Ground, k: int, *, rank_by: str = "mean_abs") -> Order:
    """The same by GIM's rule of the gradient."""
    return fap(ground, k, rank_by=rank_by, gradient="gim")


def as_score(ground: Ground, effects: NDArray[np.float64], rank_by: str) -> NDArray[np.float64]:
    """Effects `[n, n_prompts]` as one score each: `[n]`.

    Raises:
        PieFastError: Unknown `rank_by`.
    """
    if rank_by == "mean_abs":
        return ground.mean(np.abs(effects))
    if rank_by == "abs":
        return np.abs(ground.mean(effects))
    if rank_by == "signed":
        return ground.mean(effects)
    raise PieFastError(f"rank_by is {rank_by!r}, must be one of signed, abs, mean_abs")
