"""Conditional gradient: grow a circuit by what each feature would do *to this circuit*.

    score_i(S) = - d KL(model || circuit) / d gate_i        at the circuit that holds S

Plain attribution scores a feature at the full model, where every other feature is there to back
it up; this scores it where it will stand. One forward and one backward pass scores all candidates;
the best few enter, and the next pass scores the rest at the larger circuit (METHODS.md 3.3).

The first step stands at the empty circuit and cannot see a pair of which neither member does
anything alone; later steps can, once one of the two is in. The remedy is `pairs`, a shortlist of
that many features: a pair that is needed together is visible at the *full* model, where taking
either away shows, so the shortlist is ranked there. Before a step the exact joint gain of its pairs
is measured with gates, and the best pair enters where it gains more, per feature, than the best
single would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.behaviors import Prompt
from pie_fast.cost import Cost
from pie_fast.errors import BudgetError, PieFastError
from pie_fast.ground import Ground, Progress
from pie_fast.model import Replacer, Switches
from pie_fast.select import top_k


@dataclass(frozen=True)
class Grown:
    """Features in the order in which they entered the circuit.

    Attributes:
        ids: `[k]` int64 ids of candidates (`Ground.ids`); those that the circuit started with are
            not among them.
        scores: `[k]` float64, the score of each in the step in which it entered.
            (of a pair half of what it gained together, each).
        cost: Of the growth; preparing the prompts is no part of it.
        pairs: The pairs that entered together.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    cost: Cost = Cost()  # noqa: RUF009  frozen
    pairs: tuple[tuple[int, int], ...] = ()

    def then(self, more: Grown) -> Grown:
        """This growth and the one that went on from it, as one."""
        return Grown(
            np.concatenate([self.ids, more.ids]),
            np.concatenate([self.scores, more.scores]),
            self.cost + more.cost,
            self.pairs + more.pairs,
        )


def conditional_gradient(
    model: Replacer,
    prompts: Sequence[Prompt],
    candidates: ArrayLike | None,
    k: int,
    *,
    switches: Switches | None = None,
    batch_size: int = 32,
    mean_of: Sequence[Prompt] = (),
    weights: NDArray[np.float64] | None = None,
    **how: Any,
) -> Grown:
    """Select `k` features: `grow` on prompts that are prepared here.

    Args:
        model: The replacement model.
        prompts: That the circuit is grown on.
        candidates: Global ids; every active feature when None, which costs no more passes.
        k: How many to select.
        switches: As in `Ground`.
        batch_size: As in `Ground`.
        mean_of: As in `Ground`.
        weights: As in `Ground`.
        how: As in `grow`.

    Raises:
        BudgetError: `k` is negative or above the number of candidates.
        BehaviorError: There are no prompts.
        PieFastError: As `grow`, or there is not one weight of at least 0 a prompt.
    """
    ground = Ground(
        model,
        prompts,
        how.get("metric", "kl"),
        switches,
        candidates=candidates,
        batch_size=batch_size,
        mean_of=mean_of,
        weights=weights,
    )
    return grow(ground, k, **how)


def grow(
    ground: Ground,
    k: int,
    *,
    start: ArrayLike = (),
    batch: int = 5,
    share: float = 0.0,
    pairs: int = 0,
    shortlist: int = 0,
    anchor: float = 0.0,
    metric: str = "kl",
    progress: Progress | None = None,
    resumed: Grown | None = None,
    save: Callable[[Grown], None] | None = None,
) -> Grown:
    """Grow a circuit by `k` features.

    Args:
        ground: Prompts and candidates.
        k: How many; the first j of k are what j selects, where a pass ends at j.
        start: Ids, of candidates too, that are in the circuit from the start; a growth goes
            on where an earlier one stopped.
        batch: Features that enter after each pass; more is faster and a little worse.
        share: Or this share of the circuit so far, where that is more: the passes then grow with
            the logarithm of k.
        pairs: Size P of the shortlist of pair moves, 0 for none. It takes one more pass to rank
            the shortlist, and before each step P (P - 1) / 2 + 2 forward runs, all batched: 30 for
            P = 8. The first j of k are then what j selects only where j parts no pair.
        shortlist: The best so many by gradient are each tried exactly and the best of them enter;
            0: the gradient decides. It takes that many forward runs a step, and one.
        anchor: Between 0 and 1, how much a feature's mean |effect| at the model itself counts
            beside its marginal: the two are multiplied, to the powers of `anchor` and 1 - `anchor`.
            Two estimates of a different kind overfit the prompts less than one; it takes one more
            pass.
        metric: What the circuit is to have much of: `kl` (minus KL(model || circuit)) or any
            other of `pie_fast.metrics`.
        progress: Called after each pass.
        resumed: What an equal call that was stopped had saved: it is gone on with, and is part of
            the answer and of its cost.
        save: Called after each pass with the growth so far.

    Raises:
        BudgetError: `k` is negative or above the number of candidates.
        PieFastError: `batch` is below 1, `share` or `shortlist` negative, `pairs` negative or 1,
            `anchor` outside 0 to 1, or `start` is no candidate.
    """
    _check(batch, share, pairs, shortlist, anchor)
    inside = np.unique(ground.positions(start))
    available = len(ground) - len(inside)
    if not 0 <= k <= available:
        raise BudgetError(f"budget {k} is outside 0 to {available}, the number of candidates")
    state = _Growth(ground, metric, inside)
    effect = state.at_full_model() if pairs or anchor else np.zeros(len(ground))
    if resumed is not None:
        state.resume(resumed)
    while len(state.chosen) < k:
        marginal = state.marginals()
        if anchor:
            marginal = _anchored(marginal, effect, anchor)
        out = state.outside()
        done = len(state.chosen)
        step = step_size(k - done, len(inside) + done, batch, share)
        best = out[top_k(marginal[out], min(max(step, shortlist), len(out)))]
        if shortlist:
            best, marginal = state.exactly(best, marginal)
        best = best[:step]
        pair = None
        if pairs and k - len(state.chosen) > 1:
            short = out[top_k(effect[out], min(pairs, len(out)))]
            pair = state.best_pair(short, int(best[0]))
        if pair is None:
            state.add(best, marginal[best])
        else:
            state.add_pair(*pair)
        if save is not None:
            save(state.grown())
        if progress is not None:
            progress(len(state.chosen), k)
    return state.grown()


def step_size(left: int, size: int, batch: int, share: float) -> int:
    """How many of the features left to come enter a circuit of that size after a pass."""
    return min(max(batch, int(share * size)), left)


def _anchored(
    marginal: NDArray[np.float64], effect: NDArray[np.float64], anchor: float
) -> NDArray[np.float64]:
    """What does good by its marginal, in the order of both; the rest after it, as it was."""
    both = np.maximum(marginal, 0.0) ** (1 - anchor) * effect**anchor
    return np.where(marginal > 0, both, marginal)


def _check(batch: int, share: float, pairs: int, shortlist: int, anchor: float) -> None:
    if batch < 1:
        raise PieFastError(f"batch is {batch}, must be at least 1")
    if not 0 <= share < np.inf:
        raise PieFastError(f"share is {share}, must be a number of at least 0")
    if pairs < 0 or pairs == 1:
        raise PieFastError(f"pairs is {pairs}, must be 0 or at least 2")
    if shortlist < 0:
        raise PieFastError(f"shortlist is {shortlist}, must be at least 0")
    if not 0 <= anchor <= 1:
        raise PieFastError(f"anchor is {anchor}, must be between 0 and 1")


class _Growth:
    """A circuit while it grows; features are positions among the candidates here.

    Attributes:
        chosen: In the order in which they entered.
    """

    def __init__(self, ground: Ground, metric: str, inside: NDArray[np.int64]) -> None:
        self.ground, self.metric = ground, metric
        self.gates = ground.gates(inside)
        self.chosen: list[int] = []
        self._scores: list[float] = []
        self._pairs: list[tuple[int, int]] = []
        self._spent_before = ground.model.spent

    def outside(self) -> NDArray[np.int64]:
        """Candidates that are not in the circuit, ascending."""
        return (self.gates[0] == 0).nonzero().squeeze(-1).cpu().numpy()

    def marginals(self) -> NDArray[np.float64]:
        """d metric / d gate of each candidate at the circuit, mean over prompts: `[n]`."""
        return self.ground.mean(self.ground.marginals(self.gates, self.metric))

    def at_full_model(self) -> NDArray[np.float64]:
        """Mean |first-order effect| of each candidate at the full model: `[n]`."""
        return self.ground.mean(np.abs(self.ground.effects()))

    def exactly(
        self, some: NDArray[np.int64], marginal: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """`some` by exact gain, the largest first, and `marginal` with those gains in it."""
        values = self._values([(), *((int(one),) for one in some)])
        gains = values[1:] - values[0]
        marginal = marginal.copy()
        marginal[some] = gains
        return some[np.argsort(-gains, kind="stable")], marginal

    def best_pair(
        self, shortlist: NDArray[np.int64], single: int
    ) -> tuple[tuple[int, int], float] | None:
        """The pair of largest joint gain and that gain; None where `single` is as good.

        Args:
            shortlist: `[P]` positions that are not in the circuit.
            single: The best feature by its marginal, whose gain is measured exactly too: a
                gradient says too much of what saturates.
        """
        pairs = list(combinations(sorted(shortlist.tolist()), 2))
        if not pairs:
            return None
        values = self._values([(), (single,), *pairs])
        gains = values[1:] - values[0]
        best = int(np.argmax(gains[1:]))
        joint = float(gains[1 + best])
        return (pairs[best], joint) if joint > 0 and joint / 2 > gains[0] else None

    def add(self, features: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """Features enter the circuit."""
        self.chosen += features.tolist()
        self._scores += scores.tolist()
        self.gates[0, features] = 1.0

    def add_pair(self, pair: tuple[int, int], gain: float) -> None:
        """Two features enter at once."""
        self.add(np.asarray(pair), np.full(2, gain / 2))
        self._pairs.append(pair)

    def resume(self, grown: Grown) -> None:
        """Go on from a growth; its cost is known, and takes the place of what was spent here."""
        self.add(self.ground.positions(grown.ids), grown.scores)
        self._pairs = [
            (int(i), int(j))
            for i, j in (self.ground.positions(pair).tolist() for pair in grown.pairs)
        ]
        self._spent_before = self.ground.model.spent - grown.cost

    def grown(self) -> Grown:
        """As ids."""
        ids = self.ground.ids
        pairs = tuple((int(ids[i]), int(ids[j])) for i, j in self._pairs)
        scores = np.asarray(self._scores, dtype=np.float64)
        cost = self.ground.model.spent - self._spent_before
        return Grown(ids[self.chosen], scores, cost, pairs)

    def _values(self, sets: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
        """The metric with each set added to the circuit, mean over prompts: `[len(sets)]`."""
        gates = self.gates.repeat(len(sets), 1)
        for row, members in enumerate(sets):
            gates[row, list(members)] = 1.0
        return self.ground.mean(self.ground.values(gates, self.metric))
