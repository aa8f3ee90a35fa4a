"""Mask optimisation: gates of all candidates, learnt together by gradient descent.

    minimise  mean KL(model || circuit of gates g)   over g = sigmoid((w - t) / heat), sum of g = k'

Nothing trades the KL against the size: t is what makes the gates sum to k', so there is no
penalty to tune and the budget holds at every step. Over the run k' falls from `slack` times k to k
and the heat from 1 to 0.1, both in equal ratios, and the last fifth stays there; the k gates that
are largest at the end are the circuit. Many steps look at every feature in many circuits, where a
greedy selector looks once: this is the reference for what is possible, at its price.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.conditional import grow
from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods.selector import Order

STARTS = ("empty", "fap", "grown")

#: of the sigmoid, at first and at last
HEAT = (1.0, 0.1)

#: the last share of the steps, at the budget itself
SETTLED = 0.2

#: spread of the first logits of every restart but the first
NOISE = 0.3


def masks(
    ground: Ground,
    k: int,
    *,
    steps: int = 250,
    restarts: int = 1,
    rate: float = 0.05,
    prompts: int = 16,
    start: str = "empty",
    slack: float = 4.0,
) -> Order:
    """The best of `restarts` by the KL of its hard circuit on the prompts of the selection.

    Args:
        steps: Of Adam, a forward and a backward pass over `prompts` prompts each.
        restarts: Each with its own order of prompts, and after the first with noise on the start.
        rate: The learning rate.
        prompts: A step, in an order of the seed's; 0: all.
        start: Logits before the first step: `empty` all equal, `fap` by the logarithm of mean
            |effect|, `grown` higher for what the conditional gradient selects.
        slack: Gates sum to this times k at first.

    Raises:
        PieFastError: An argument is out of range.
    """
    _check(steps, restarts, rate, prompts, start, slack)
    if k == 0:
        return np.zeros(0, np.int64), np.zeros(0)
    first = _first_logits(ground, k, start)
    found: list[NDArray[np.float64]] = []
    for seed in np.random.SeedSequence(ground.seed).spawn(restarts):
        rng = np.random.default_rng(seed)
        noise = NOISE * rng.standard_normal(len(ground)) * bool(found)
        parts = _minibatches(ground, prompts, rng)
        found.append(_learn(parts, first + noise, k, steps, rate, slack))
    orders = [np.argsort(-logits, kind="stable")[:k] for logits in found]
    best = 0
    if restarts > 1:
        best = int(np.argmax(ground.mean(ground.values(ground.gates(*orders)))))
    return orders[best], found[best][orders[best]]


def relaxed_top_k(logits: Tensor, k: float, heat: float) -> Tensor:
    """Gates in [0, 1] that sum to k: `sigmoid((logits - t) / heat)`, the top k where heat is small.

    The gradient knows that t moves with the logits, so that it sums to 0: only what a feature is
    worth beyond others moves its gate.

    Args:
        logits: `[n]`.
        k: Between 0 and n; at n and above all gates are 1.
        heat: Above 0.
    """
    if k >= len(logits):
        return torch.ones_like(logits) + 0.0 * logits
    with torch.no_grad():
        low, high = logits.min() - 40 * heat, logits.max() + 40 * heat
        for _ in range(60):
            t = (low + high) / 2
            above = torch.sigmoid((logits - t) / heat).sum() > k
            low, high = torch.where(above, t, low), torch.where(above, high, t)
        gates = torch.sigmoid((logits - t) / heat)
        slope = gates * (1 - gates)
        share = slope / slope.sum().clamp(min=torch.finfo(slope.dtype).tiny)
    # By the implicit function theorem `share` is d t / d logits.
    threshold = t + (share * (logits - logits.detach())).sum()
    return torch.sigmoid((logits - threshold) / heat)


def _learn(
    parts: list[Ground], first: NDArray[np.float64], k: int, steps: int, rate: float, slack: float
) -> NDArray[np.float64]:
    """Logits after the last step: `[n]`."""
    logits = torch.tensor(first, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=rate)
    for step in range(steps):
        rest = max(1 - step / (steps * (1 - SETTLED)), 0.0)
        gates = relaxed_top_k(logits, k * slack**rest, HEAT[1] * (HEAT[0] / HEAT[1]) ** rest)
        part = parts[step % len(parts)]
        row = gates.detach()[None].to(part.model.device, torch.float32)
        gain = part.mean(part.marginals(row))
        adam.zero_grad()
        gates.backward(torch.from_numpy(-gain))  # type: ignore[no-untyped-call]
        adam.step()
    return logits.detach().numpy()


def _first_logits(ground: Ground, k: int, start: str) -> NDArray[np.float64]:
    """In units of the first heat: `[n]`."""
    logits = np.zeros(len(ground))
    if start == "grown":
        logits[ground.positions(grow(ground, k).ids)] = 1.0
    if start == "fap":
        effect = ground.mean(np.abs(ground.effects()))
        logits = np.log(np.maximum(effect, 1e-6 * effect.max() + np.finfo(np.float64).tiny))
        logits = (logits - logits.mean()) / (logits.std() + np.finfo(np.float64).tiny)
    return logits


def _minibatches(ground: Ground, size: int, rng: np.random.Generator) -> list[Ground]:
    """The prompts in random order, so many at a time; as they are where that is all of them."""
    n_prompts = len(ground.prompts)
    if size == 0 or size >= n_prompts:
        return [ground]
    order = rng.permutation(n_prompts)
    order = order[ground.weights[order] > 0]
    return [
        Ground(
            ground.model,
            [ground.prompts[i] for i in some],
            ground.metric,
            ground.switches,
            candidates=ground.pool.global_ids,
            batch_size=ground.batch_size,
            mean_of=ground.mean_of,
            weights=ground.weights[some],
        )
        for some in np.array_split(order, -(-len(order) // size))
    ]


def _check(steps: int, restarts: int, rate: float, prompts: int, start: str, slack: float) -> None:
    if start not in STARTS:
        raise PieFastError(f"start is {start!r}, must be one of {', '.join(STARTS)}")
    for name, value, least in (
        ("steps", steps, 1),
        ("restarts", restarts, 1),
        ("prompts", prompts, 0),
        ("slack", slack, 1),
    ):
        if not least <= value < np.inf:
            raise PieFastError(f"{name} is {value}, must be at least {least}")
    if not 0 < rate < np.inf:
        raise PieFastError(f"rate is {rate}, must be above 0")
