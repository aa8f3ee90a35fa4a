"""FAP with integrated gradients: the mean effect on the way from nothing to everything.

    score_i = integral over t in [0, 1] of d metric / d gate_i    where all gates are t

Every candidate's gate goes from 0, the empty circuit, to 1, all candidates. The integral is the
mean at the middles of `steps` equal parts. But for the error of that, and for features that switch
on or off on the way, which no gradient sees, the effects of a prompt sum to metric(all) -
metric(none). The path keeps away from the clean point, where the gradient of the KL is 0, so that
here the metric may be `kl` too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods.selector import Order, ranked
from pie_fast.methods.single import as_score


def fap_ig(
    ground: Ground,
    k: int,
    *,
    steps: int = 5,
    metric: str = "behavior",
    rank_by: str = "mean_abs",
    gradient: str = "full",
) -> Order:
    """Largest integrated effect.

    Args:
        steps: Points of the path, a forward and a backward pass each.
        metric: One of `pie_fast.metrics`; `behavior` is that of the ground.
        rank_by: How effects on prompts become a score.
        gradient: A rule of `pie_fast.gradients`.

    Raises:
        PieFastError: `steps` is below 1.
    """
    if steps < 1:
        raise PieFastError(f"steps is {steps}, must be at least 1")
    metric = ground.metric if metric == "behavior" else metric
    effects = ground.once(
        ("integrated", steps, metric, gradient),
        lambda: integrated_effects(ground, steps, metric, gradient),
    )
    return ranked(as_score(ground, effects, rank_by))


def integrated_effects(
    ground: Ground, steps: int, metric: str, gradient: str = "full"
) -> NDArray[np.float64]:
    """Effect of each candidate on each prompt, by the midpoint rule: `[n, n_prompts]`."""
    whole = ground.gates(range(len(ground)))
    total = np.zeros((len(ground), len(ground.prompts)))
    for step in range(steps):
        total += ground.marginals(whole * ((step + 0.5) / steps), metric, gradient=gradient)
        ground.tell(step + 1, steps)
    return total / steps
