"""Conditional gradient: grow a circuit by what each feature would do *to this circuit*.

    score_i(S) = - d KL(model || circuit) / d gate_i        at the circuit that holds S

Plain attribution scores a feature at the full model, where every other feature is there to back
it up; this scores it where it will stand. One forward and one backward pass scores all candidates;
the best few enter, and the next pass scores the rest at the larger circuit (METHODS.md 3.3).

The first step stands at the empty circuit and cannot see a pair of which neither member does
anything alone; later steps can, once one of the two is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pie_fast.attribution import gate_effects, pool_effects
from pie_fast.behaviors import Prompt
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.model import Pool, Replacer, Setup, Switches, batches
from pie_fast.select import top_k

#: called with the number of features selected and the number wanted
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Grown:
    """Features in the order in which they entered the circuit.

    Attributes:
        ids: `[k]` int64 global ids; those that the circuit started with are not among them.
        scores: `[k]` float64, the score of each in the step in which it entered.
        passes: Forward and backward passes over all prompts that it took.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    passes: int

    def then(self, more: Grown) -> Grown:
        """This growth and the one that went on from it, as one."""
        return Grown(
            np.concatenate([self.ids, more.ids]),
            np.concatenate([self.scores, more.scores]),
            self.passes + more.passes,
        )


def conditional_gradient(
    model: Replacer,
    prompts: Sequence[Prompt],
    candidates: Sequence[int] | NDArray[np.integer],
    k: int,
    *,
    start: Sequence[int] | NDArray[np.integer] = (),
    batch: int = 5,
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
        PieFastError: `batch` is below 1, or there is not one positive sum of weights.
    """
    pool = model.make_pool(np.unique(np.asarray(candidates, dtype=np.int64)).tolist())
    inside = _positions(pool, start)
    free = len(pool) - len(inside)
    if not 0 <= k <= free:
        raise BudgetError(f"budget {k} is outside 0 to {free}, the number of candidates")
    if batch < 1:
        raise PieFastError(f"batch is {batch}, must be at least 1")
    if not prompts:
        raise BehaviorError("there are 0 prompts; at least 1 is needed")
    each = _weights(weights, len(prompts), model.device)
    setups = [
        (model.prepare(part, switches or Switches(), mean_of or prompts), each[first:][: len(part)])
        for first, part in batches(prompts, batch_size, model.device)
    ]
    gates = torch.zeros(1, len(pool), device=model.device)
    gates[0, torch.as_tensor(inside, device=model.device)] = 1.0
    chosen: list[int] = []
    scores: list[float] = []
    passes = 0
    while len(chosen) < k:
        summed = sum(_marginals(model, *setup, pool, gates, metric) for setup in setups)
        marginal = np.asarray(summed) / float(each.sum())
        out = np.setdiff1d(np.arange(len(pool)), [*inside, *chosen])
        best = out[top_k(marginal[out], min(batch, k - len(chosen)))]
        chosen += best.tolist()
        scores += marginal[best].tolist()
        gates[0, torch.as_tensor(best, device=model.device)] = 1.0
        passes += 1
        if progress is not None:
            progress(len(chosen), k)
    return Grown(pool.global_ids[chosen], np.asarray(scores, dtype=np.float64), passes)


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


def _marginals(
    model: Replacer,
    setup: Setup,
    weights: torch.Tensor,
    pool: Pool,
    gates: torch.Tensor,
    metric: str,
) -> NDArray[np.float64]:
    """d metric / d gate of each candidate at the circuit, weighted sum over prompts: `[M]`."""
    found = gate_effects(model, setup, metric, pool=pool, gates=gates, rest="baseline")
    effects = pool_effects(found, setup, pool)[0].double()
    weighted: NDArray[np.float64] = (effects * weights[:, None]).sum(0).cpu().numpy()
    return weighted
