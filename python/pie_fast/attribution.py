"""First-order effects of features on a metric, and the exact ones beside them.

    effect_f(x, t) = sum over targets t' of <dm / dmlp_out_t'(t), (a_f - b_f) d_{f -> t'}>

is the derivative of the metric by the gate of feature f at position t, so one backward pass gives
the effect of every feature of every prompt in the batch. Summed over positions it is the FAP score
of a prompt (arXiv 2604.16889).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.clt import Columns
from pie_fast.cost import Cost
from pie_fast.errors import PieFastError
from pie_fast.metrics import check_metric, metric_values
from pie_fast.model import MeanOf, Pool, Replacer, Run, Setup, Switches, sweep
from pie_fast.progress import Advance

#: sets x prompts x positions of one forward pass when many gate settings are batched; a CPU is
#: fastest where a layer's activations stay in its cache
MAX_TOKENS, MAX_TOKENS_CPU = 16_384, 2_048


@dataclass(frozen=True)
class Effects:
    """Effects at one state of the gates.

    Attributes:
        metric: `[n_sets, batch]`.
        activations: Per layer the features in play with their activations, `[n_sets * batch,
            n_pos, n]`.
        effects: Per layer the same shape as `activations`' values.
        deltas: Per layer activation minus baseline, the same shape.
    """

    metric: Tensor
    activations: tuple[Columns, ...]
    effects: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]


def own_metric(setup: Setup, metric: str) -> Tensor:
    """The metric of the model itself: `[batch]`."""
    batch = setup.batch
    return metric_values(metric, setup.logits, batch.answer, batch.foil, setup.logits)


def run_metric(setup: Setup, run: Run, metric: str) -> Tensor:
    """The metric of every set and prompt of a run: `[n_sets, batch]`."""
    n_sets, batch = run.logits.shape[:2]
    flat = run.logits.flatten(0, 1)
    answer, foil = setup.batch.answer.repeat(n_sets), setup.batch.foil.repeat(n_sets)
    reference = setup.logits.repeat(n_sets, 1)
    return metric_values(metric, flat, answer, foil, reference).view(n_sets, batch)


def gate_effects(
    model: Replacer,
    setup: Setup,
    metric: str,
    *,
    pool: Pool | None = None,
    gates: Tensor | None = None,
    rest: str = "free",
    gradient: str = "full",
) -> Effects:
    """Effects of all features in play, by one forward and one backward pass.

    Args:
        model: The replacement model.
        setup: A prepared batch.
        metric: See `pie_fast.metrics`.
        pool, gates, rest: The state to differentiate at, see `Replacer.run`.
        gradient: A rule of `pie_fast.gradients`.
    """
    at_clean = pool is None and rest == "free"
    check_metric(metric, for_gradient_at_clean=at_clean)
    run = model.run(setup, pool, gates, rest=rest, gradient=gradient)
    values = run_metric(setup, run, metric)
    terms = [columns.values for columns in run.terms]
    model.spent += Cost(backward=values.numel())
    grads = torch.autograd.grad(values.sum(), terms, allow_unused=True, materialize_grads=True)
    effects = tuple(g * delta for g, delta in zip(grads, run.deltas, strict=True))
    activations = tuple(Columns(c.ids, c.values.detach()) for c in run.terms)
    return Effects(values.detach(), activations, effects, run.deltas)


def sets_per_pass(setup: Setup, *, backward: bool = False) -> int:
    """How many gate settings to batch; a backward pass keeps twice as much."""
    tokens = setup.batch.tokens
    most = MAX_TOKENS_CPU if tokens.device.type == "cpu" else MAX_TOKENS
    return max(1, most // ((1 + backward) * tokens.numel()))


def pool_effects(effects: Effects, setup: Setup, pool: Pool) -> Tensor:
    """Effects of a pool's features, summed over counted positions: `[n_sets, batch, len(pool)]`."""
    n_sets, batch = effects.metric.shape
    counted = setup.counted.repeat(n_sets, 1)[..., None]
    parts = []
    for layer, ids in enumerate(pool.by_layer):
        total = (effects.effects[layer] * counted).sum(1, keepdim=True)
        parts.append(Columns(effects.activations[layer].ids, total).at(ids)[:, 0])
    return torch.cat(parts, 1).view(n_sets, batch, len(pool))


class Patcher:
    """Exact importance `I(S)` of sets of features, the batches prepared once.

    Noising: `m(all) - m(all without S)`; denoising: `m(only S) - m(none)` (DESIGN.md section 2).

    Args:
        model: The replacement model.
        prompts: Over which it is measured.
        pool: Features that the sets draw from.
        metric: See `pie_fast.metrics`.
        switches: Baseline and the rest.
        direction: `noising` or `denoising`.
        batch_size: Prompts a batch.
        mean_of: Prompts that `baseline="mean"` averages over, or their means; `prompts` when None.
    """

    def __init__(
        self,
        model: Replacer,
        prompts: Sequence[Prompt],
        pool: Pool,
        metric: str,
        switches: Switches,
        *,
        direction: str = "noising",
        batch_size: int = 32,
        mean_of: MeanOf | None = None,
    ) -> None:
        check_direction(direction)
        check_metric(metric)
        self.model, self.pool, self.metric = model, pool, metric
        self.n_prompts, self.noising = len(prompts), direction == "noising"
        self.rest = "free" if self.noising else "baseline"
        self.setups = model.prepare_all(prompts, switches, mean_of or (), batch_size=batch_size)

    def gates(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """The members of each set moved, every other feature of the pool left: `[n_sets, M]`."""
        gates = torch.full((len(sets), len(self.pool)), float(self.noising))
        for row, members in enumerate(sets):
            gates[row, list(members)] = float(not self.noising)
        return gates.to(self.model.device)

    def effects(
        self, sets: Sequence[Sequence[int]], *, progress: Advance | None = None
    ) -> NDArray[np.float64]:
        """`I` of each set, a list of positions in the pool: `[n_sets, n_prompts]`, signed."""
        values = self.values([(), *sets], progress=progress)
        return values[:1] - values[1:] if self.noising else values[1:] - values[:1]

    def values(
        self, sets: Sequence[Sequence[int]], *, progress: Advance | None = None
    ) -> NDArray[np.float64]:
        """The metric with each set moved: `[n_sets, n_prompts]`.

        Cheapest where the sets differ from the first one in high layers only. `progress` is called
        with the entries that are measured and all that there are.
        """
        done = 0
        out, gates = np.zeros((len(sets), self.n_prompts)), self.gates(sets)
        for first, setup in self.setups:
            columns = slice(first, first + len(setup.batch))
            at_once = sets_per_pass(setup)
            for rows, run in sweep(
                self.model, setup, self.pool, gates, rest=self.rest, at_once=at_once
            ):
                found = run_metric(setup, run, self.metric).cpu().double().numpy()
                out[rows, columns] = found
                done += found.size
                if progress is not None:
                    progress(done, out.size)
        return out

    def first_order(self, gradient: str = "full") -> NDArray[np.float64]:
        """First-order effect of each pool feature at the clean run: `[len(pool), n_prompts]`."""
        parts = []
        for _, setup in self.setups:
            found = gate_effects(self.model, setup, self.metric, gradient=gradient)
            parts.append(pool_effects(found, setup, self.pool)[0].cpu().double().numpy())
        return np.concatenate(parts).T


def check_direction(direction: str) -> None:
    """Refuse an unknown direction.

    Raises:
        PieFastError: With the two that there are.
    """
    if direction not in ("noising", "denoising"):
        raise PieFastError(f"direction is {direction!r}, must be noising or denoising")
