"""Circuits of nodes: a feature at a place, and not wherever it is active.

A node is (layer, slot, feature). circuit-tracer's nodes are (layer, position, feature) of one
prompt; a behaviour has many prompts, whose positions mean the same only where they are aligned:
slots (`pie_fast.slots`) do that, and a node of a slot of several tokens is the feature on all of
them. A kept node passes on its feature's activation at its slot; everywhere else the feature has
its baseline.

    node id = global id * n_slots + slot

so that ids ascend by layer, feature, slot. Whoever reads a circuit reads its features: a node says
more than a feature (where), and a feature may be in several nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pie_fast.attribution import Effects
from pie_fast.behaviors import Prompt
from pie_fast.clt import Columns
from pie_fast.evaluate import measure
from pie_fast.gated import with_slots
from pie_fast.ground import Ground
from pie_fast.model import Replacer, Setup, Switches
from pie_fast.slots import Node, Slots, read_nodes


class NodeGround(Ground):
    """A `Ground` whose candidates are nodes: every feature at every slot where it is active.

    Gates, effects and ids are of nodes, `n` is their number; `pool` holds their features. Of a run
    at a circuit, what is no candidate does what the rest does.

    Args:
        model, prompts, metric, switches: As of `Ground`.
        slots: Those of `prompts` when None. Features have no nodes where there is no slot.
        options: As of `Ground`; `candidates` are global ids of features, all of whose nodes are
            candidates.

    Raises:
        BehaviorError, PieFastError: As `Ground`.
    """

    unit = "node"
    slots: Slots

    def __init__(
        self,
        model: Replacer,
        prompts: Sequence[Prompt],
        metric: str,
        switches: Switches | None = None,
        *,
        slots: Slots | None = None,
        **options: Any,
    ) -> None:
        self.slots = Slots.of(prompts) if slots is None else slots
        super().__init__(model, prompts, metric, switches, **options)

    @cached_property
    def setups(self) -> Sequence[tuple[int, Setup]]:
        """The prepared batches, which know their slots."""
        prepared = self.model.prepare_all(
            self.prompts, self.switches, self.mean_of, batch_size=self.batch_size
        )
        return with_slots(prepared, self.prompts, self.slots)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Node ids of the candidates, ascending."""
        features, slots = np.nonzero(self.moved())
        return self.pool.global_ids[features] * len(self.slots) + slots

    def moved(self) -> NDArray[np.bool_]:
        """Which features differ from their baseline at which slots: `[len(pool), n_slots]`."""
        active = np.zeros((len(self.pool), len(self.slots)), dtype=bool)
        for _, setup in self.setups:
            moved = [
                Columns(ids, (clean.at(ids) != base.at(ids)).to(clean.values.dtype))
                for clean, base, ids in zip(
                    setup.clean, setup.baseline, self.pool.by_layer, strict=True
                )
            ]
            active |= (self._by_slot(setup, moved).sum(0) > 0).T.cpu().numpy()
        return active

    def having(self, nodes: NDArray[np.int64]) -> Self:
        """The same prompts with other candidates: node ids, ascending, of features of the pool."""
        new = self.afresh()
        vars(new).pop("_places", None)
        new.ids = nodes
        return new

    def nodes(self, ids: ArrayLike) -> list[Node]:
        """Node ids, candidates or not, as something to read."""
        return read_nodes(ids, self.slots, self.model.clt.n_features)

    def magnitudes(self) -> NDArray[np.float64]:
        """Mean over prompts of the sum over a slot of \\|activation\\|: `[n]`; no model call."""
        parts = [
            self._at_nodes(
                self._by_slot(setup, [Columns(c.ids, c.values.abs()) for c in setup.clean])
            )
            for _, setup in self.setups
        ]
        return self.mean(torch.cat(parts).cpu().double().numpy().T)

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Slot and position in the pool of every node: `[n]` each."""
        features, slots = np.divmod(self.ids, len(self.slots))
        columns = np.searchsorted(self.pool.global_ids, features)
        device = self.model.device
        return torch.from_numpy(slots).to(device), torch.from_numpy(columns).to(device)

    def _as_run(self, gates: Tensor, rest: str) -> Tensor:
        """Gates of nodes as those of a run: `[n_sets, n_slots, len(pool)]`."""
        shape = len(gates), len(self.slots), len(self.pool)
        whole = gates.new_full(shape, float(rest == "free"))
        slots, columns = self._places
        whole[:, slots, columns] = gates
        return whole

    def _of_candidates(self, found: Effects, setup: Setup) -> Tensor:
        """Effects of nodes: `[batch, n]`."""
        columns = [
            Columns(acts.ids, effects)
            for acts, effects in zip(found.activations, found.effects, strict=True)
        ]
        return self._at_nodes(self._by_slot(setup, columns))

    def _by_slot(self, setup: Setup, columns: Sequence[Columns]) -> Tensor:
        """Sums over the counted positions of each slot: `[batch, n_slots, len(pool)]`."""
        assert setup.slots is not None, "a ground of nodes has them"
        numbers = torch.arange(len(self.slots), device=self.model.device)[:, None]
        inside = (setup.slots[:, None] == numbers) & setup.counted[:, None]
        each = [
            Columns(some.ids, inside.to(some.values.dtype) @ some.values).at(ids)
            for some, ids in zip(columns, self.pool.by_layer, strict=True)
        ]
        return torch.cat(each, 2)

    def _at_nodes(self, by_slot: Tensor) -> Tensor:
        slots, columns = self._places
        return by_slot[:, slots, columns]


def node_kl(
    model: Replacer,
    circuits: Sequence[ArrayLike],
    slots: Slots,
    prompts: Sequence[Prompt],
    *,
    switches: Switches,
    mean_of: Sequence[Prompt] = (),
    batch_size: int = 64,
) -> NDArray[np.float64]:
    """KL(model || circuit) of circuits of nodes on prompts, held-out ones mostly.

    Args:
        model: The replacement model.
        circuits: Node ids of each.
        slots: Of the ids, `NodeGround.slots`. Where a prompt has others nothing is kept.
        prompts: To judge on; each batch is prepared once.
        switches: Baseline and the rest.
        mean_of: Prompts that `baseline="mean"` averages over; `prompts` when empty.
        batch_size: Prompts a batch.

    Returns:
        `[n_circuits, n_prompts]` nats.

    Raises:
        PieFastError: A feature is not in the CLT.
    """
    found = measure(
        model,
        circuits,
        prompts,
        metric="kl",
        switches=switches,
        mean_of=mean_of,
        batch_size=batch_size,
        completeness=False,
        slots=slots,
    )
    return np.stack([one.kl for one in found])
