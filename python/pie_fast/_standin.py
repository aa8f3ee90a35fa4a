"""numpy stand-in until the native selection is merged; then this file goes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie_fast.errors import PieFastError
from pie_fast.types import Selection


def greedy_select(
    scores: NDArray[np.float64], synergy: NDArray[np.float64], k: int, *, bonus: str = "mean"
) -> Selection:
    """Greedy rule of the paper, by increments."""
    ids: list[int] = []
    gains: list[float] = []
    extra = np.zeros(len(scores))
    for step in range(k):
        gain = scores + extra / (max(step, 1) if bonus == "mean" else 1) + 0.0
        gain[ids] = -np.inf
        best = int(np.argmax(gain))
        ids.append(best)
        gains.append(float(gain[best]))
        extra = extra + synergy[best]
    return Selection(np.array(ids, dtype=np.int64), np.array(gains, dtype=np.float64))


def top_k(scores: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Score descending, ties to the smaller id."""
    if np.isnan(scores).any():
        raise PieFastError("a score is NaN")
    return np.argsort(-scores, kind="stable")[:k].astype(np.int64)
