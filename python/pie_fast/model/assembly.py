"""The MLP outputs of one replacement run, put together layer by layer while it runs.

With the rest free, the run is the clean one up to the first layer that has a moved feature: below
it the model's own MLP outputs stand, and at it only what the moved features no longer write is
taken off what all features wrote there. From the next layer on everything is encoded anew.

A run may also begin with the prefix of another one that agrees with it below some layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pie_fast.clt import Clt, Columns
from pie_fast.gradients import RULES
from pie_fast.model.host import Hook
from pie_fast.model.pool import Pool
from pie_fast.model.state import Prefix, Setup


class Assembly:
    """Collects what each layer's features write and hands it out as MLP outputs.

    Attributes:
        first: The first layer with a moved feature; -1 where no layer is taken from the clean run.
        terms: Per layer the features in play and their `A`; up to `first` those of the pool only.
        deltas: Per layer `a - b` of the same, detached.
    """

    def __init__(
        self,
        clt: Clt,
        setup: Setup,
        pool: Pool | None,
        gates: Tensor | None,
        rest: str,
        gradient: str | None,
        prefix: Prefix | None = None,
    ) -> None:
        self.clt, self.setup, self.pool, self.rest = clt, setup, pool, rest
        self.gradient = gradient
        self.n_prompts = len(setup.batch)
        self.n_sets = 1 if gates is None else len(gates)
        self.gates = None if gates is None else self._at_positions(gates)
        self.terms: list[Columns] = []
        self.deltas: list[Tensor] = []
        self._writes: list[Tensor | None] = [None] * clt.n_layers
        self._skipped: Tensor | None = None
        self.first = self._first_moved()
        if prefix is not None:
            self._begin_with(prefix)

    def reader(self, layer: int) -> Hook:
        """The hook that encodes what `layer` reads."""

        def read(x: Tensor) -> None:
            x = x.to(self.clt.b_dec.dtype)
            self._skipped = self.clt.skip(layer, x)
            if self.gradient is not None and not RULES[self.gradient].features:
                x = x.detach()
            if layer < self.first or layer not in self.clt.covered:
                self._leave_out(x)
                return
            ids, a, b = self._features(layer, x)
            gate = self._gate(layer, ids)
            term = a - b if self.rest == "baseline" else a
            if gate is not None:
                term = gate * (a - b) if self.rest == "baseline" else b + gate * (a - b)
            if self.gradient is not None and not term.requires_grad:
                term = term.requires_grad_()
            self.terms.append(Columns(ids, term))
            self.deltas.append((a - b).detach())
            if layer == self.first:
                self._begin_at(layer, ids, term - a.detach())
                return
            for target, part in self.clt.writes(layer, ids, term):
                so_far = self._writes[target]
                self._writes[target] = part if so_far is None else so_far + part

        return read

    def _begin_at(self, layer: int, ids: Tensor, moved: Tensor) -> None:
        """At the first moved layer the clean run's writes stand, but for what has moved."""
        by_target = dict(self.clt.writes(layer, ids, moved))
        for target, clean in clean_writes(self.clt, self.setup, layer).items():
            part = by_target.get(target)
            if part is None:
                self._writes[target] = clean.repeat(self.n_sets, 1, 1)
            else:
                self._writes[target] = (self._per_set(part) + clean).flatten(0, 1)

    def keeper(self, layer: int, kept: dict[int, Prefix]) -> Hook:
        """The hook that keeps where the run stands when it enters the block of `layer`."""

        def keep(residual: Tensor) -> None:
            kept[layer] = Prefix(layer, residual, self.first, tuple(self._writes[layer:]))

        return keep

    def writer(self, layer: int) -> Hook:
        """The hook that replaces the MLP output of `layer`."""

        def write(out: Tensor) -> Tensor:
            setup = self.setup
            if layer < self.first:
                return setup.mlp_out[layer].repeat(self.n_sets, 1, 1).to(out.dtype)
            fixed = self.clt.b_dec[layer] if self.rest == "free" else setup.empty_out[layer]
            writes = self._writes[layer]
            assert writes is not None, "a layer writes after it reads"
            rebuilt = self._per_set(writes) + fixed + setup.error[layer]
            if self._skipped is not None:
                rebuilt = rebuilt + self._per_set(self._skipped)
            own = setup.mlp_out[layer].to(rebuilt.dtype)
            rebuilt = torch.where(setup.ignored[..., None], own, rebuilt)
            self._writes[layer] = None
            return rebuilt.flatten(0, 1).to(out.dtype)

        return write

    def _leave_out(self, like: Tensor) -> None:
        """A layer that has no features in play."""
        none = Columns.none(like)
        self.deltas.append(none.values.detach())
        none.values.requires_grad_(self.gradient is not None)
        self.terms.append(none)

    def _begin_with(self, prefix: Prefix) -> None:
        for _ in range(prefix.layer):
            self._leave_out(prefix.residual[:1, :1])
        # Where the other run had moved nothing yet, the first moved layer is one of this run.
        if prefix.first < prefix.layer:
            self.first = prefix.first
            for target, so_far in enumerate(prefix.writes, start=prefix.layer):
                self._writes[target] = None if so_far is None else so_far.repeat(self.n_sets, 1, 1)

    def _features(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids in play, their activations `a` and baselines `b`, `[n_sets * batch, n_pos, n]`."""
        encoder, base = self.clt.encoder(layer), self.setup.baseline[layer]
        frozen = self.setup.switches.activations == "freeze"
        if layer == self.first:
            assert self.pool is not None, "only features of a pool are moved"
            ids = self.pool.by_layer[layer]
            a = self._clean(layer, ids)
        elif self.rest == "baseline":
            assert self.pool is not None, "only a pool can be kept while the rest is at baseline"
            ids = self.pool.by_layer[layer]
            a = self._clean(layer, ids) if frozen else encoder.encode_only(x, ids)
        else:
            also = base.ids
            if self.pool is not None:
                also = torch.cat([also, self.pool.by_layer[layer]])
            if frozen:
                ids = torch.unique(torch.cat([self.setup.clean[layer].ids, also]))
                a = self._clean(layer, ids)
            else:
                columns = encoder.encode(x, also)
                ids, a = columns.ids, columns.values
        b = base.at(ids)
        if len(b) > 1:
            b = b.repeat(self.n_sets, 1, 1)
        return ids, a, b

    def _first_moved(self) -> int:
        if self.rest == "baseline" or self.pool is None:
            return -1
        if self.gradient is not None or self.setup.switches.error == "drop":
            return 0  # what layer 0 reads depends on no feature and no error
        if self.gates is None:
            return self.clt.n_layers
        moved = (self.gates != 1).flatten(0, 1).any(0).cpu()
        layers = (n for n, slot in enumerate(self.pool.slots) if bool(moved[slot].any()))
        return next(layers, self.clt.n_layers)

    def _clean(self, layer: int, ids: Tensor) -> Tensor:
        return self.setup.clean[layer].at(ids).repeat(self.n_sets, 1, 1)

    def _gate(self, layer: int, ids: Tensor) -> Tensor | None:
        """`[n_sets * batch, 1 or n_pos, n]`: the pool's gates, 1 for all else in play."""
        if self.gates is None or self.pool is None:
            return None
        mine = self.gates[..., self.pool.slots[layer]]
        if self.rest == "baseline" or layer == self.first:
            return mine
        gate = mine.new_ones(*mine.shape[:2], len(ids))
        return gate.index_copy(2, torch.searchsorted(ids, self.pool.by_layer[layer]), mine)

    def _at_positions(self, gates: Tensor) -> Tensor:
        """The gates of every set on every prompt: `[n_sets * batch, 1 or n_pos, M]`."""
        if gates.dim() == 2:  # one row serves all prompts of its set
            return gates.repeat_interleave(self.n_prompts, 0)[:, None]
        assert self.setup.slots is not None, "gates by slot are of a setup with slots"
        still = torch.full_like(gates[:, :1], float(self.rest == "free"))
        # It comes last, where -1, no slot, finds it.
        return torch.cat([gates, still], 1)[:, self.setup.slots].flatten(0, 1)

    def _per_set(self, x: Tensor) -> Tensor:
        return x.view(self.n_sets, self.n_prompts, *x.shape[1:])


def clean_writes(clt: Clt, setup: Setup, layer: int) -> dict[int, Tensor]:
    """What features of layers up to `layer` write on the clean run, to the layers from it on.

    Returns:
        By target layer `[batch, n_pos, d_model]`; targets that nothing is written to are left out.
    """
    if layer not in setup.written:
        total: dict[int, Tensor] = {}
        for source in range(layer + 1):
            columns = setup.clean[source]
            if clt.targets(source).stop <= layer:
                continue  # per-layer transcoders below it
            for target, part in clt.writes(source, columns.ids, columns.values):
                if target >= layer:
                    total[target] = total[target] + part if target in total else part
        setup.written[layer] = total
    return setup.written[layer]
