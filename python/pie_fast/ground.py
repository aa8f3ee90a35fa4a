"""What selectors stand on: prepared prompts, their candidates, and the questions that can be asked.

    effects      first-order effect of every candidate at the model itself, one pass
    marginals    the same at a circuit
    values       the metric of given circuits, exactly

Candidates are all features that differ from their baseline on a prompt; selectors speak of them by
position, `0 .. len(ground)`, in ascending id. `pie_fast.nodes` has a ground whose candidates are
nodes, features at places.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pie_fast.attribution import Effects, gate_effects, pool_effects, run_metric, sets_per_pass
from pie_fast.behaviors import Prompt
from pie_fast.cost import Cost
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.model import MeanOf, Pool, Replacer, Setup, Switches, sweep
from pie_fast.slots import Slots

#: called with what is done and what there is to do, in the selector's own unit
Progress = Callable[[int, int], None]

T = TypeVar("T")


class Ground:
    """The prompts of a selection, prepared once.

    Args:
        model: The replacement model.
        prompts: That the selection is made on.
        metric: The behaviour's, for effects at the model itself; see `pie_fast.metrics`.
        switches: Baseline and the rest; the default `Switches` when None.
        candidates: Global ids; every active feature when None.
        batch_size: Prompts a batch.
        mean_of: Prompts that `baseline="mean"` averages over, or their means; `prompts` when empty.
        weights: `[n_prompts]`, how much each prompt counts; 1 each when None.
        seed: Of whatever is random.

    Attributes:
        progress: Called by selectors that take long, in their own unit; None tells nobody.
        unit: What a candidate is.
        slots: Of nodes.

    Raises:
        BehaviorError: There are no prompts.
        PieFastError: There is not one weight of at least 0 a prompt.
    """

    unit = "feature"
    slots: Slots | None = None

    def __init__(
        self,
        model: Replacer,
        prompts: Sequence[Prompt],
        metric: str,
        switches: Switches | None = None,
        *,
        candidates: ArrayLike | None = None,
        batch_size: int = 32,
        mean_of: MeanOf = (),
        weights: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> None:
        if not prompts:
            raise BehaviorError("there are 0 prompts; at least 1 is needed")
        self.model, self.prompts, self.metric, self.seed = model, prompts, metric, seed
        self.switches, self.mean_of = switches or Switches(), mean_of or prompts
        self.batch_size = batch_size
        self.weights = as_weights(weights, len(prompts), "prompts")
        if candidates is not None:
            self.pool = self._as_pool(candidates)
        self._forget()
        self._prepare()

    @cached_property
    def setups(self) -> Sequence[tuple[int, Setup]]:
        """The prepared batches, each with the number of its first prompt."""
        return self.model.prepare_all(
            self.prompts, self.switches, self.mean_of, batch_size=self.batch_size
        )

    def _prepare(self) -> None:
        """Prepare the prompts where they will run: here."""
        _ = self.setups

    def afresh(
        self,
        *,
        seed: int | None = None,
        weights: ArrayLike | None = None,
        metric: str | None = None,
    ) -> Self:
        """The same prepared prompts, with nothing charged yet: a next selector pays for itself."""
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        new._charged = set()
        if seed is not None:
            new.seed = seed
        if metric is not None:
            new.metric = metric
        if weights is not None:
            new.weights = as_weights(weights, len(self.prompts), "prompts")
        return new

    def reweighted(self, weights: ArrayLike) -> Self:
        """The same with other weights; what is paid for stays paid for."""
        new = self.afresh(weights=weights)
        new._charged, new.progress = self._charged, None
        return new

    def tell(self, done: int, total: int) -> None:
        """Tell `progress`, if anybody listens."""
        if self.progress is not None:
            self.progress(done, total)

    @cached_property
    def pool(self) -> Pool:
        """The features of the candidates."""
        return self._as_pool(self._active())

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the candidates, ascending: `[n]`; of features their global ids."""
        return self.pool.global_ids

    def __len__(self) -> int:
        """The number of candidates."""
        return len(self.ids)

    def positions(self, ids: ArrayLike, what: str = "start") -> NDArray[np.int64]:
        """Where ids stand among the candidates, in their order.

        Raises:
            PieFastError: One of them is no candidate.
        """
        wanted = np.asarray(ids, dtype=np.int64)
        strange = np.setdiff1d(wanted, self.ids)
        if len(strange):
            raise PieFastError(f"{what} holds {self.unit} {strange[0]}, which is not a candidate")
        return np.searchsorted(self.ids, wanted)

    def gates(self, *sets: Sequence[int] | NDArray[np.integer]) -> Tensor:
        """1 for the members of each set, 0 for all others: `[n_sets, n]`."""
        gates = torch.zeros(len(sets), len(self), device=self.model.device)
        for row, members in zip(gates, sets, strict=True):
            row[torch.as_tensor(np.asarray(members, dtype=np.int64), device=row.device)] = 1.0
        return gates

    def mean(self, per_prompt: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weighted mean over prompts, the last axis."""
        weighted: NDArray[np.float64] = per_prompt @ self.weights / self.weights.sum()
        return weighted

    def magnitudes(self) -> NDArray[np.float64]:
        """Mean over prompts of the sum over positions of \\|activation\\|: `[n]`; no model call."""
        parts = []
        for _, setup in self.setups:
            counted = setup.counted[..., None]
            each = [
                (clean.at(ids).abs() * counted).sum(1)
                for clean, ids in zip(setup.clean, self.pool.by_layer, strict=True)
            ]
            parts.append(torch.cat(each, 1).cpu().double().numpy())
        return self.mean(np.concatenate(parts).T)

    def once(self, key: Hashable, ask: Callable[[], T]) -> T:
        """What `ask` answers, asked once for all copies of this ground and charged once to each.

        It may depend on the metric, and must not on weights or seed.
        """
        key = self.metric, key
        if key not in self._known:
            before = self.model.spent
            answer = ask()
            self._known[key] = answer, self.model.spent - before
        elif key not in self._charged:
            self.model.spent += self._known[key][1]
        self._charged.add(key)
        found: T = self._known[key][0]
        return found

    def effects(self, gradient: str = "full") -> NDArray[np.float64]:
        """First-order effect on the metric at the model itself: `[n, n_prompts]`.

        One forward and one backward pass; asked for again, none.
        """
        return self.once(
            ("effects", gradient), lambda: self.gradients(self._slope_metric, gradient)
        )

    def marginals(
        self, gates: Tensor, metric: str = "kl", *, gradient: str = "full"
    ) -> NDArray[np.float64]:
        """d metric / d gate at a circuit of `gates` `[1, n]`: `[n, n_prompts]`; one pass."""
        return self.gradients(metric, gradient, gates)

    def values(
        self,
        gates: Tensor,
        metric: str = "kl",
        *,
        rest: str = "baseline",
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """The metric of each row of gates `[n_sets, n]`, exactly: `[n_sets, n_prompts]`.

        One forward pass a row, from where it first differs from the first row.

        Args:
            gates: Of all candidates.
            metric: See `pie_fast.metrics`.
            rest: `free` or `baseline`, see `Replacer.run`.
            progress: Called after each pass.
        """
        out = np.zeros((len(gates), len(self.prompts)))
        gates = self._as_run(gates, rest)
        done, total = 0, len(gates) * len(self.setups)
        with torch.no_grad():
            for first, setup in self.setups:
                at_once = sets_per_pass(setup)
                for rows, run in sweep(
                    self.model, setup, self.pool, gates, rest=rest, at_once=at_once
                ):
                    found = run_metric(setup, run, metric).cpu().double().numpy()
                    out[rows, first : first + len(setup.batch)] = found
                    done += len(rows)
                    if progress is not None:
                        progress(done, total)
        return out

    @property
    def _slope_metric(self) -> str:
        # The KL is flat at the model itself; the answer's log probability is what it is about, and
        # needs no foil.
        return "logprob" if self.metric == "kl" else self.metric

    def gradients(
        self, metric: str, gradient: str, gates: Tensor | None = None
    ) -> NDArray[np.float64]:
        """d metric / d gate at a circuit, None: at the model itself: `[n, n_prompts]`."""
        at: dict[str, Any] = {}
        if gates is not None:
            run_gates = self._as_run(gates, "baseline")
            at = {"pool": self.pool, "gates": run_gates, "rest": "baseline"}
        parts = []
        for _, setup in self.setups:
            found = gate_effects(self.model, setup, metric, gradient=gradient, **at)
            parts.append(self._of_candidates(found, setup).cpu().double().numpy())
        return np.concatenate(parts).T

    def _as_run(self, gates: Tensor, rest: str) -> Tensor:
        """Gates of candidates, `[n_sets, n]`, as `Replacer.run` wants them."""
        return gates

    def _of_candidates(self, found: Effects, setup: Setup) -> Tensor:
        """Effects of the candidates: `[batch, n]`."""
        return pool_effects(found, setup, self.pool)[0]

    def _forget(self) -> None:
        """Nothing asked yet, and nobody listens."""
        self.progress: Progress | None = None
        self._known: dict[Hashable, tuple[Any, Cost]] = {}
        self._charged: set[Hashable] = set()

    def _as_pool(self, ids: ArrayLike) -> Pool:
        return self.model.make_pool(np.unique(np.asarray(ids, dtype=np.int64)).tolist())

    def _active(self) -> NDArray[np.int64]:
        """Global ids of features that differ from their baseline on a counted position."""
        n_layers, n_features = self.model.clt.n_layers, self.model.clt.n_features
        seen = np.zeros(n_layers * n_features, dtype=bool)
        for _, setup in self.setups:
            for layer, (clean, base) in enumerate(zip(setup.clean, setup.baseline, strict=True)):
                ids = torch.unique(torch.cat([clean.ids, base.ids]))
                moved = (clean.at(ids) != base.at(ids)) & setup.counted[..., None]
                found = ids[moved.flatten(0, 1).any(0)]
                seen[layer * n_features + found.cpu().numpy()] = True
        return np.flatnonzero(seen)


def as_weights(weights: ArrayLike | None, n: int, whose: str) -> NDArray[np.float64]:
    """How much each prompt or behaviour counts, 1 each when None: `[n]`.

    Raises:
        PieFastError: Not one finite number of at least 0 each, or all 0.
    """
    each = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if each.shape != (n,) or not (each >= 0).all() or not 0 < each.sum() < np.inf:
        raise PieFastError(
            f"weights {each.tolist()} must be one finite number of at least 0 for each of "
            f"{n} {whose}, not all 0"
        )
    return each
