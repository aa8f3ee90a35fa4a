"""Exact ablation: what every candidate does alone, one run each.

noising      metric(all) - metric(all without it)
denoising    metric(only it) - metric(none)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.attribution import check_direction
from pie_fast.cost import Cost
from pie_fast.ground import Ground
from pie_fast.methods.selector import Order, ranked
from pie_fast.methods.single import as_score

#: gate settings that are held at once
BLOCK = 64


def exact(
    ground: Ground,
    k: int,
    *,
    direction: str = "noising",
    metric: str = "behavior",
    rank_by: str = "mean_abs",
) -> Order:
    """Largest effect by ablation.

    Args:
        direction: `noising` or `denoising`.
        metric: One of `pie_fast.metrics`; `behavior` is that of the ground.
        rank_by: How effects on prompts become a score.

    Raises:
        PieFastError: Unknown direction.
    """
    check_direction(direction)
    metric = ground.metric if metric == "behavior" else metric
    effects = ground.once(
        ("exact", direction, metric), lambda: exact_effects(ground, direction, metric)
    )
    return ranked(as_score(ground, effects, rank_by))


def cost(ground: Ground, k: int, **_: Any) -> Cost:
    """A run for each candidate and one with none moved."""
    return Cost(forward=(len(ground) + 1) * len(ground.prompts))


def exact_effects(ground: Ground, direction: str, metric: str) -> NDArray[np.float64]:
    """Effect of each candidate on each prompt: `[n, n_prompts]`."""
    noising = direction == "noising"
    rest = "free" if noising else "baseline"
    n = len(ground)
    still = ground.gates(range(n) if noising else ())
    before = ground.values(still, metric, rest=rest)
    after = np.empty((n, len(ground.prompts)))
    # In ascending id, so that a block has few layers and runs that start at the first of them.
    for first in range(0, n, BLOCK):
        block = slice(first, min(first + BLOCK, n))
        gates = still.repeat(block.stop - first, 1)
        rows = np.arange(block.stop - first)
        gates[rows, rows + first] = float(not noising)
        after[block] = ground.values(gates, metric, rest=rest)
        ground.tell(block.stop, n)
    return before - after if noising else after - before
