"""How far apart two answers are: KL in both directions, and whether the favourite is the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """KL(p || q) of ``[n_rows, n_answers]`` probabilities, the mean over rows.

    0 log 0 is 0; an answer that p allows and q excludes makes it infinite. What rounding leaves
    below zero is zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return float(np.maximum(terms.sum(axis=-1), 0.0).mean())


def top1_agreement(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """The share of rows whose most probable answer is the same, ties to the first."""
    return float((p.argmax(axis=-1) == q.argmax(axis=-1)).mean())


def summary(
    forward: list[float], reverse: list[float], agreements: list[float], kl_direction: str
) -> dict[str, object]:
    """The figures of an evaluation from one triple per test prompt.

    Args:
        forward: KL(model || circuit) of each prompt.
        reverse: KL(circuit || model) of each prompt.
        agreements: Top-1 agreement of each prompt.
        kl_direction: Which of the two the fidelity is made of.
    """
    if kl_direction != "model||circuit":
        forward, reverse = reverse, forward
    mean = float(np.mean(forward))
    return {
        "behavioral_fidelity": 1.0 - min(mean, 1.0),
        "kl_divergences": forward,
        "mean_kl": mean,
        "kl_direction": kl_direction,
        "kl_divergences_reverse": reverse,
        "top1_agreement": float(np.mean(agreements)),
        "n_prompts": len(forward),
    }
