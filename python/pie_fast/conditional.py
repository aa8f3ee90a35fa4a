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
import torch
from numpy.typing import NDArray

from pie_fast.attribution import gate_effects, pool_effects, run_metric, sets_per_pass
from pie_fast.behaviors import Prompt
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.model import Pool, Replacer, Setup, Switches
from pie_fast.select import top_k

#: called with the number of features selected and the number wanted
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Grown:
    """Features in the order in which they entered the circuit.

    Attributes:
        ids: `[k]` int64 global ids; those that the circuit started with are not among them.
        scores: `[k]` float64, the score of each in the step in which it entered.
            (of a pair half of what it gained together, each).
        passes: Forward and backward passes over all prompts that it took.
        runs: Forward runs over all prompts, with no backward, that pair moves took besides.
        pairs: The pairs that entered together.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    passes: int
    runs: int = 0
    pairs: tuple[tuple[int, int], ...] = ()

    def then(self, more: Grown) -> Grown:
        """This growth and the one that went on from it, as one."""
        return Grown(
            np.concatenate([self.ids, more.ids]),
            np.concatenate([self.scores, more.scores]),
            self.passes + more.passes,
            self.runs + more.runs,
            self.pairs + more.pairs,
        )


def conditional_gradient(
    model: Replacer,
    prompts: Sequence[Prompt],
    candidates: Sequence[int] | NDArray[np.integer],
    k: int,
    *,
    start: Sequence[int] | NDArray[np.integer] = (),
    batch: int = 5,
    pairs: int = 0,
    metric: str = "kl",
    switches: Switches | None = None,
    batch_size: int = 32,
    mean_of: Sequence[Prompt] | None = None,
    weights: NDArray[np.float64] | None = None,
    progress: Progress | None = None,
) -> Grown:
    """Select `k` features, `batch` of them a pass.

    Args:
        model: The replacement model.
        prompts: That the circuit is grown on.
        candidates: Global ids; usually every active feature, which costs no more passes.
        k: How many to select; the first j of k are what j selects, where `batch` divides j.
        start: Global ids, candidates too, that are in the circuit from the start; a growth goes
            on where an earlier one stopped.
        batch: Features that enter after each pass; more is faster and a little worse.
        pairs: Size P of the shortlist of pair moves, 0 for none. It takes one more pass to rank
            the shortlist, and before each step P (P - 1) / 2 + 2 forward runs, all batched: 30 for
            P = 8. The first j of k are then what j selects only where j parts no pair.
        metric: What the circuit is to have much of: `kl` (minus KL(model || circuit)) or any
            other of `pie_fast.metrics`.
        switches: Baseline and the rest; the default `Switches` when None.
        batch_size: Prompts a batch.
        mean_of: Prompts that `baseline="mean"` averages over; `prompts` when None.
        weights: `[n_prompts]`, how much each prompt counts; 1 each when None.
        progress: Called after each pass.

    Raises:
        BudgetError: `k` is negative or above the number of candidates.
        BehaviorError: There are no prompts.
        PieFastError: `batch` is below 1, `pairs` is negative or 1, `start` is no candidate, or
            there is not one weight of at least 0 a prompt.
    """
    pool = model.make_pool(np.unique(np.asarray(candidates, dtype=np.int64)).tolist())
    inside = _positions(pool, start)
    _check(len(pool) - len(inside), k, batch, pairs, len(prompts))
    each = _weights(weights, len(prompts), model.device)
    prepared = model.prepare_all(
        prompts, switches or Switches(), mean_of or (), batch_size=batch_size
    )
    setups = [(setup, each[first:][: len(setup.batch)]) for first, setup in prepared]
    state = _Growth(model, setups, pool, metric, inside)
    ranked = state.at_full_model() if pairs else None
    while len(state.chosen) < k:
        marginal = state.marginals()
        out = state.outside()
        best = out[top_k(marginal[out], min(batch, k - len(state.chosen)))]
        pair = None
        if ranked is not None and k - len(state.chosen) > 1:
            short = out[top_k(ranked[out], min(pairs, len(out)))]
            pair = state.best_pair(short, int(best[0]))
        if pair is None:
            state.add(best, marginal[best])
        else:
            state.add_pair(*pair)
        if progress is not None:
            progress(len(state.chosen), k)
    return state.grown()


def _check(n_candidates: int, k: int, batch: int, pairs: int, n_prompts: int) -> None:
    if not 0 <= k <= n_candidates:
        raise BudgetError(f"budget {k} is outside 0 to {n_candidates}, the number of candidates")
    if batch < 1:
        raise PieFastError(f"batch is {batch}, must be at least 1")
    if pairs < 0 or pairs == 1:
        raise PieFastError(f"pairs is {pairs}, must be 0 or at least 2")
    if not n_prompts:
        raise BehaviorError("there are 0 prompts; at least 1 is needed")


def _positions(pool: Pool, ids: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    """Where a circuit's features stand among the candidates.

    Raises:
        PieFastError: One of them is no candidate.
    """
    wanted = np.unique(np.asarray(ids, dtype=np.int64))
    strange = np.setdiff1d(wanted, pool.global_ids)
    if len(strange):
        raise PieFastError(f"start holds feature {strange[0]}, which is not a candidate")
    return np.searchsorted(pool.global_ids, wanted)


def _weights(
    weights: NDArray[np.float64] | None, n_prompts: int, device: torch.device
) -> torch.Tensor:
    """How much each prompt counts: `[n_prompts]` float64."""
    if weights is None:
        return torch.ones(n_prompts, dtype=torch.float64, device=device)
    each = torch.as_tensor(weights, dtype=torch.float64, device=device)
    if each.shape != (n_prompts,) or not (each >= 0).all() or not 0 < each.sum() < torch.inf:
        raise PieFastError(
            f"weights of shape {tuple(each.shape)} must be one finite number of at least 0 for "
            f"each of {n_prompts} prompts, not all 0"
        )
    return each


class _Growth:
    """A circuit while it grows; features are positions in the pool here.

    Attributes:
        chosen: In the order in which they entered.
    """

    def __init__(
        self,
        model: Replacer,
        setups: Sequence[tuple[Setup, torch.Tensor]],
        pool: Pool,
        metric: str,
        inside: NDArray[np.int64],
    ) -> None:
        self.model, self.setups, self.pool, self.metric = model, setups, pool, metric
        self.weight = sum(float(weights.sum()) for _, weights in setups)
        self.gates = torch.zeros(1, len(pool), device=model.device)
        self.gates[0, torch.as_tensor(inside, device=model.device)] = 1.0
        self.chosen: list[int] = []
        self._scores: list[float] = []
        self._pairs: list[tuple[int, int]] = []
        self._passes = self._runs = 0

    def outside(self) -> NDArray[np.int64]:
        """Candidates that are not in the circuit, ascending."""
        return (self.gates[0] == 0).nonzero().squeeze(-1).cpu().numpy()

    def marginals(self) -> NDArray[np.float64]:
        """d metric / d gate of each candidate at the circuit, mean over prompts: `[len(pool)]`."""
        at_circuit = {"pool": self.pool, "gates": self.gates, "rest": "baseline"}
        return self._mean(lambda effects: effects, self.metric, **at_circuit)

    def at_full_model(self) -> NDArray[np.float64]:
        """Mean |first-order effect| of each candidate at the full model: `[len(pool)]`."""
        # The KL is flat there; the answer's log probability is what it is about, and needs no foil.
        metric = "logprob" if self.metric == "kl" else self.metric
        return self._mean(torch.abs, metric)

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
        self.gates[0, torch.as_tensor(features, device=self.model.device)] = 1.0

    def add_pair(self, pair: tuple[int, int], gain: float) -> None:
        """Two features enter at once."""
        self.add(np.asarray(pair), np.full(2, gain / 2))
        self._pairs.append(pair)

    def grown(self) -> Grown:
        """As global ids."""
        ids = self.pool.global_ids
        pairs = tuple((int(ids[i]), int(ids[j])) for i, j in self._pairs)
        scores = np.asarray(self._scores, dtype=np.float64)
        return Grown(ids[self.chosen], scores, self._passes, self._runs, pairs)

    def _mean(
        self, of: Callable[[torch.Tensor], torch.Tensor], metric: str, **state: Any
    ) -> NDArray[np.float64]:
        """Mean over prompts of a function of first-order effects at a state: `[len(pool)]`."""
        self._passes += 1
        total = np.zeros(len(self.pool))
        for setup, weights in self.setups:
            found = gate_effects(self.model, setup, metric, **state)
            effects = of(pool_effects(found, setup, self.pool)[0]).double()
            total += (effects * weights[:, None]).sum(0).cpu().numpy()
        return total / self.weight

    def _values(self, sets: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
        """The metric with each set added to the circuit, mean over prompts: `[len(sets)]`."""
        self._runs += len(sets)
        gates = self.gates.repeat(len(sets), 1)
        for row, members in enumerate(sets):
            gates[row, list(members)] = 1.0
        total = np.zeros(len(sets))
        for setup, weights in self.setups:
            per_pass = sets_per_pass(setup)
            for at in range(0, len(sets), per_pass):
                part = gates[at : at + per_pass]
                run = self.model.run(setup, self.pool, part, rest="baseline")
                values = run_metric(setup, run, self.metric).double() @ weights
                total[at : at + len(part)] += values.cpu().numpy()
        return total / self.weight
