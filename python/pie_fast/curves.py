"""Figures of a curve over budgets: what a selector saves, how faithful it is all along. No torch.

effective budget   the K at which a baseline reaches the mean KL of a selector's K, interpolated
                   in log KL; saved = 1 - K_selector / K_baseline
log area           mean of log10(mean KL) over log K
CPR, CMD           int f dk and int |1 - f| dk of faithfulness f over the share k of candidates
                   kept, trapezoids on `SHARES` (MIB circuit track; METHODS.md section 5.1)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from pie_fast.errors import PieFastError

#: MIB's shares of what can be kept
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

#: a mean KL below this is as good as 0, and its logarithm says nothing
SMALLEST_KL = 1e-6


def budget_reaching(curve: Mapping[int, float], kl: float) -> float | None:
    """The K, interpolated in log KL, at which a curve first falls to a mean KL.

    Args:
        curve: Budget -> mean KL in nats.
        kl: To be reached.

    Returns:
        None where the curve stays above; the smallest budget where it starts below.
    """
    points = sorted(_checked(curve).items())
    target = np.log(max(kl, SMALLEST_KL))
    for (k0, a), (k1, b) in itertools.pairwise((k, np.log(v)) for k, v in points):
        if a > target >= b:
            return float(k0 + (k1 - k0) * (a - target) / (a - b))
    return float(points[0][0]) if np.log(points[0][1]) <= target else None


def share_saved(
    curve: Mapping[int, float], baseline: Mapping[int, float], k: int, empty_kl: float
) -> float | None:
    """`1 - k / effective budget` of a selector at k against a baseline; negative where it loses.

    Args:
        curve: The selector's budget -> mean KL.
        baseline: The baseline's.
        k: A budget of `curve`.
        empty_kl: Mean KL of the empty circuit.

    Returns:
        None where it is undefined: neither is below half of the empty circuit's KL at k, the
        baseline never reaches the selector's KL, or it starts below it.
    """
    mine = curve[k]
    if min(mine, baseline.get(k, np.inf)) > empty_kl / 2 or mine < SMALLEST_KL:
        return None
    needed = budget_reaching(baseline, mine)
    first = min(baseline)
    if needed is None or (needed == first and baseline[first] < mine):
        return None
    return 1.0 - k / needed


def log_area(curve: Mapping[int, float]) -> float:
    """Mean of log10(mean KL) over log K between the first and the last budget; lower is better."""
    points = sorted(_checked(curve).items())
    if len(points) < 2:
        raise PieFastError(f"a curve of {len(points)} budgets has no area; at least 2 are needed")
    x = np.log([k for k, _ in points])
    y = np.log10([kl for _, kl in points])
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def cpr_cmd(faithfulness: Sequence[float], shares: Sequence[float] = SHARES) -> tuple[float, float]:
    """CPR and CMD of faithfulness at shares of the candidates.

    A perfect CPR is the last share minus the first (0.999 on `SHARES`), a perfect CMD is 0.
    """
    f, at = np.asarray(faithfulness, dtype=np.float64), np.asarray(shares)
    if f.shape != at.shape:
        raise PieFastError(f"{len(f)} values of faithfulness for {len(at)} shares")
    return float(np.trapezoid(f, at)), float(np.trapezoid(np.abs(1 - f), at))


def log_auc(faithfulness: Sequence[float], shares: Sequence[float] = SHARES) -> float:
    """Mean of faithfulness over log share: 1 where it is 1 all along."""
    at = np.log(shares)
    return float(np.trapezoid(faithfulness, at) / (at[-1] - at[0]))


def _checked(curve: Mapping[int, float]) -> dict[int, float]:
    if not curve:
        raise PieFastError("the curve has no points")
    for k, kl in curve.items():
        if not kl >= 0:
            raise PieFastError(f"mean KL at K={k} is {kl}, must be a number of at least 0")
    return {k: max(kl, SMALLEST_KL) for k, kl in curve.items()}
