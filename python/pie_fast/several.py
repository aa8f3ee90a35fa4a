"""Several behaviours as one ground to select on: the KLs of a circuit, one a behaviour, as one.

    weighted   sum over behaviours of w_b KL_b
    worst      softness * log sum over behaviours of exp(KL_b / softness), a soft maximum

The gradient of either is a weighted sum of the behaviours' own, with `w_b` or with the softmax of
`KL_b / softness`; so a selector that stands on a `Ground` needs to know of nothing but the weights
of its prompts. A front of circuits comes of `weighted` over a grid of weights: it finds the convex
part of the true front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.errors import PieFastError
from pie_fast.ground import Ground, as_weights

OBJECTIVES = ("weighted", "worst", "pareto")

#: nats; behaviours whose KL is so far below the largest have 1/e of its weight
SOFTNESS = 0.1

#: a front has at most so many weights of a grid, and at most so many steps from 0 to 1
MOST_WEIGHTS, MOST_STEPS = 21, 8


class SharedGround(Ground):
    """The prompts of several behaviours, each prepared with its own baseline.

    A growth on it asks for marginals at each step. With `worst` these set the weights anew, from
    the KLs of the circuit that they are asked at, at the price of one forward pass.

    It has no `switches` and no `mean_of` of its own: selectors that prepare the prompts again
    (those with pair synergies) cannot use it.

    Args:
        parts: One ground a behaviour, of one model.
        weights: One a behaviour, at least 0, not all 0; 1 each when None.
        worst: Follow the largest KL instead.

    Attributes:
        parts: As given.
        spans: Which of `prompts` each behaviour's are.
        shares: `[n_behaviors]`, sum 1: how much each counts now.

    Raises:
        PieFastError: No parts, parts of several models, or weights that are none.
    """

    def __init__(
        self, parts: Sequence[Ground], weights: ArrayLike | None = None, *, worst: bool = False
    ) -> None:
        # Not `Ground.__init__`, which prepares prompts: the parts have done that.
        if not parts or any(part.model is not parts[0].model for part in parts):
            raise PieFastError("a shared ground needs at least 1 ground, all of one model")
        self.parts, self.worst = tuple(parts), worst
        self.model, self.seed, self.batch_size = parts[0].model, parts[0].seed, parts[0].batch_size
        # Logit differences and log probabilities do not add up; the KL is in nats for all.
        self.metric = "kl"
        ends = np.cumsum([len(part.prompts) for part in parts]).tolist()
        self.spans = [slice(end - len(p.prompts), end) for end, p in zip(ends, parts, strict=True)]
        self.prompts: list[Prompt] = [prompt for part in parts for prompt in part.prompts]
        self.setups = [
            (span.start + first, setup)
            for span, part in zip(self.spans, parts, strict=True)
            for first, setup in part.setups
        ]
        self.pool = self._as_pool(np.concatenate([part.pool.global_ids for part in parts]))
        self._forget()
        self._weigh(weights)

    def towards(self, weights: ArrayLike | None = None, *, worst: bool = False) -> Self:
        """The same prompts for another objective."""
        new = self.afresh()
        new.worst = worst
        new._weigh(weights)
        return new

    def marginals(self, gates: Tensor, *args: Any, **kwargs: Any) -> NDArray[np.float64]:
        """As `Ground.marginals`; with `worst` it sets the weights first."""
        if self.worst:
            kl = self.divergences(gates)[0]
            self._weigh(np.exp((kl - kl.max()) / SOFTNESS))
        return super().marginals(gates, *args, **kwargs)

    def divergences(self, gates: Tensor) -> NDArray[np.float64]:
        """Mean KL(model || circuit) of each row of gates on each behaviour: `[n_sets, n_parts]`."""
        values = self.values(gates, "kl")
        parts = zip(self.parts, self.spans, strict=True)
        return np.stack([-part.mean(values[:, span]) for part, span in parts], 1)

    def removal_effects(self, ids: ArrayLike) -> NDArray[np.float64]:
        """How much each behaviour's KL rises when one feature of a circuit goes.

        Args:
            ids: `[k]` global ids, the circuit.

        Returns:
            `[k, n_parts]` nats, exact: one forward pass a feature.
        """
        places = self.positions(ids, "the circuit")
        gates = self.gates(places).repeat(1 + len(places), 1)
        for row, place in enumerate(places, start=1):
            gates[row, place] = 0.0
        kl = self.divergences(gates)
        return kl[1:] - kl[:1]

    def _weigh(self, weights: ArrayLike | None) -> None:
        """Let behaviours count so much, whatever the number of their prompts."""
        self.shares = as_shares(weights, len(self.parts))
        # Within a behaviour its prompts count as they do there.
        each = [
            share * part.weights / part.weights.sum()
            for share, part in zip(self.shares, self.parts, strict=True)
        ]
        self.weights = np.concatenate(each)


def as_shares(weights: ArrayLike | None, n_behaviors: int) -> NDArray[np.float64]:
    """Weights of behaviours with the sum 1, equal ones when None: `[n_behaviors]`.

    Raises:
        PieFastError: Not one finite number of at least 0 each, or all 0.
    """
    each = as_weights(weights, n_behaviors, "behaviours")
    shares: NDArray[np.float64] = each / each.sum()
    return shares


def weight_grid(n_behaviors: int, n_steps: int | None = None) -> NDArray[np.float64]:
    """Weights on an even grid (simplex lattice; Das and Dennis 1998): `[n, n_behaviors]`, sum 1.

    Args:
        n_behaviors: At least 1.
        n_steps: Steps from weight 0 to 1; by default as many as give at most 21 weights, and 8 at
            most: 9 weights of two behaviours, 21 of three, 20 of four.

    Raises:
        PieFastError: `n_steps` is below 1.
    """
    if n_steps is not None and n_steps < 1:
        raise PieFastError(f"n_steps is {n_steps}, must be at least 1")
    if n_steps is None:
        sizes = range(1, MOST_STEPS + 1)
        few = [size for size in sizes if comb(size + n_behaviors - 1, size) <= MOST_WEIGHTS]
        n_steps = max(few, default=1)
    grid = np.asarray(_compositions(n_steps, n_behaviors), dtype=np.float64)
    grid /= grid.sum(1, keepdims=True)
    return grid


def _compositions(total: int, n_parts: int) -> list[list[int]]:
    """Every way to write `total` as a sum of `n_parts` numbers of at least 0."""
    bars = combinations(range(total + n_parts - 1), n_parts - 1)
    return [
        [b - a - 1 for a, b in zip((-1, *cut), (*cut, total + n_parts - 1), strict=True)]
        for cut in bars
    ]


def non_dominated(losses: ArrayLike) -> NDArray[np.bool_]:
    """Which rows of `[n, m]` losses no other row beats: nowhere above and somewhere below."""
    rows = np.asarray(losses, dtype=np.float64)
    no_worse = (rows[:, None] <= rows[None]).all(-1)
    better = (rows[:, None] < rows[None]).any(-1)
    return np.logical_not((no_worse & better).any(0))


def interleaved(orders: Mapping[str, ArrayLike], k: int) -> list[int]:
    """The first k of several orders taken in turns, each once: what sharing has to beat.

    Fewer where all orders together hold fewer.
    """
    queues = [np.asarray(order, dtype=np.int64).tolist() for order in orders.values()]
    longest = max(map(len, queues), default=0)
    in_turns = (queue[at] for at in range(longest) for queue in queues if at < len(queue))
    return list(dict.fromkeys(in_turns))[:k]
