"""The replacement model: every MLP output rebuilt from CLT features.

A run is described by a pool of features, a gate for each, and what the rest does:

    mlp_out_t = const_t + sum over l <= t of A_l @ W_dec[l][:, t - l]

    rest="free"       const_t = b_dec_t + error_t                A_l = every feature of layer l,
                                                                 pooled ones moved to b + g (a - b)
    rest="baseline"   const_t = reconstruction(b)_t + error_t    A_l = g (a - b) of pooled ones only

with `a` recomputed from what the layer reads in this very run, `b` the baseline, and `g` the gate:
1 keeps a feature, 0 sets it to its baseline. Gates at 1 with the rest free is the model itself;
gates at 0 with the rest at baseline is the empty circuit. The gradient of the metric with respect
to a gate is the feature's first-order effect (FAP, METHODS.md section 3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.clt import Clt, Columns
from pie_fast.cost import Cost
from pie_fast.errors import BehaviorError, CheckpointError, PieFastError
from pie_fast.gradients import RULES, check_gradient
from pie_fast.model.assembly import Assembly
from pie_fast.model.backward import backward_hooks, straight_through
from pie_fast.model.batch import Batch, batches
from pie_fast.model.host import Hook, Host
from pie_fast.model.means import MeanOf, MeanPart, Means, MeanSums
from pie_fast.model.pool import Pool
from pie_fast.model.settings import Switches
from pie_fast.model.sites import resolve_sites
from pie_fast.model.state import Prefix, Run, Setup
from pie_fast.positions import check_ignored, n_ignored


class Replacer:
    """A language model whose MLPs are rebuilt by a CLT.

    Attributes:
        host: The language model.
        clt: The transcoder.
        read_hook, write_hook: Hook points of a block that its features read and write.
        ignore_positions: Which first positions of a prompt keep the model's own MLP output, and
            have no features: `auto`, `circuit-tracer` or a number, see `pie_fast.positions`.
        spent: Prompts that have run so far, forward and backward.
    """

    def __init__(self, host: Host, clt: Clt, *, ignore_positions: int | str | None = None) -> None:
        self.host = host
        self.clt = clt.for_layers(host.n_layers) if clt.partial else clt
        self.ignore_positions = check_ignored(ignore_positions)
        self.spent = Cost()
        self._means: dict[tuple[tuple[int, ...], ...], Means] = {}
        _check_fit(host, self.clt)
        self.read_hook, self.write_hook = resolve_sites(
            clt.read_hook, clt.write_hook, host.block_points, model=host.name, clt=clt.name
        )

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.host.device

    @property
    def setting(self) -> dict[str, Any]:
        """What of it decides the bytes of an answer, beside the weights of the model."""
        return {
            "clt": self.clt.identity,
            "hooks": [self.read_hook, self.write_hook],
            "ignore_positions": self.ignore_positions,
            "dtypes": self.host.dtypes,
            "device": self.device.type,
        }

    def make_pool(self, features: Iterable[int]) -> Pool:
        """Global ids in any order as a `Pool`."""
        ids = np.sort(np.fromiter(features, dtype=np.int64))
        return Pool(ids, self.clt.n_layers, self.clt.n_features, self.device)

    def ignored(self, batch: Batch) -> Tensor:
        """`[batch, n_pos]` bool: positions that are left to the model's own MLPs."""
        at = torch.arange(batch.tokens.shape[1], device=self.device)
        n = n_ignored(self.ignore_positions, self.host.name)
        if n is not None:
            return (at < n).expand(batch.tokens.shape)
        starts = batch.tokens[:, :1] == (-1 if self.host.bos is None else self.host.bos)
        return starts & (at == 0)

    def prepare(self, batch: Batch, switches: Switches, mean_of: MeanOf = ()) -> Setup:
        """Run the model itself once (twice with counterfactuals) and keep what replacement needs.

        Args:
            batch: Prompts.
            switches: Of the runs to come.
            mean_of: The prompts over which `baseline="mean"` averages, or their means.

        Raises:
            BehaviorError: `baseline="counterfactual"` and a prompt has none.
        """
        with torch.no_grad():
            freeze = switches.attention == "freeze"
            reads, mlp_out, patterns, logits = self._observe(batch.tokens, batch, patterns=freeze)
            clean = self._encode(reads)
            baseline = self._baseline(batch, switches, mean_of)
            rebuilt = self._with_skips(self._reconstruct(clean, batch.tokens.shape), reads)
            error = tuple(
                m - r if switches.error == "keep" else torch.zeros_like(m[:1, :1])
                for m, r in zip(mlp_out, rebuilt, strict=True)
            )
            empty_out = self._reconstruct(baseline, (1, 1))
        return Setup(
            batch,
            switches,
            logits,
            clean,
            baseline,
            empty_out,
            error,
            tuple(mlp_out),
            tuple(patterns) if freeze else None,
            self.ignored(batch),
        )

    def prepare_all(
        self,
        prompts: Sequence[Prompt],
        switches: Switches,
        mean_of: MeanOf = (),
        *,
        batch_size: int = 32,
    ) -> list[tuple[int, Setup]]:
        """`prepare` on all of them in batches, each with the number of its first prompt.

        Args:
            mean_of: As in `prepare`; `prompts` when empty.
        """
        return [
            (first, self.prepare(batch, switches, mean_of or prompts))
            for first, batch in batches(prompts, batch_size, self.device)
        ]

    def run(
        self,
        setup: Setup,
        pool: Pool | None = None,
        gates: Tensor | None = None,
        *,
        rest: str = "free",
        gradient: str | None = None,
        prefix: Prefix | None = None,
        keep: Collection[int] = (),
    ) -> Run:
        """One forward pass of the replacement model for every row of gates.

        Args:
            setup: From `prepare`.
            pool: The gated features; None with `rest="free"` is the model itself.
            gates: `[n_sets, len(pool)]`, or `[n_sets, n_slots, len(pool)]` where the setup has
                slots; None for one set of ones.
            rest: `free` or `baseline`, what features outside the pool do.
            gradient: None, or a rule of `pie_fast.gradients`.
            prefix: Of a run of this setup, with the same `rest`, whose gates agree with all rows
                below the prefix's layer: begin there. Not for gradients.
            keep: Layers whose prefixes are kept, of a run with one row of gates and no gradient.

        Returns:
            Logits and, for gradients, the tensors to differentiate by.

        Raises:
            PieFastError: Unknown gradient rule, a prefix where there is a gradient, or kept of
                several rows; gates by slot that are not of the setup's slots.
        """
        if gradient is not None:
            check_gradient(gradient)
        if gates is not None and gates.dim() == 3:
            _check_slots(setup, gates)
        n_sets = 1 if gates is None else len(gates)
        if (prefix is not None or keep) and (gradient is not None or (keep and n_sets > 1)):
            raise PieFastError(
                f"a prefix needs a run without gradient (it is {gradient}), and can be kept of one "
                f"row of gates only (there are {n_sets})"
            )
        assembly = Assembly(self.clt, setup, pool, gates, rest, gradient, prefix)
        start = 0 if prefix is None else prefix.layer
        kept: dict[int, Prefix] = {}
        tokens = setup.batch.tokens.repeat(n_sets, 1)
        at = setup.batch.answer_position.repeat(n_sets)
        hooks = self._attention_hooks(setup, n_sets, gradient)
        if prefix is not None:
            hooks.append((f"blocks.{start}.hook_in", _constant(_per_set(prefix.residual, n_sets))))
        hooks += [(f"blocks.{layer}.hook_in", assembly.keeper(layer, kept)) for layer in keep]
        for layer in range(start, self.clt.n_layers):
            write_hook = f"blocks.{layer}.{self.write_hook}"
            hooks.append((f"blocks.{layer}.{self.read_hook}", assembly.reader(layer)))
            if layer in self.clt.covered:
                hooks.append((write_hook, assembly.writer(layer)))
            elif gradient is not None and not RULES[gradient].features:
                hooks.append((write_hook, Tensor.detach))  # an MLP of the model's own
        uncapped: list[Tensor] = []
        if gradient is not None and not RULES[gradient].softcap:
            hooks.append(("unembed.hook_out", uncapped.append))
        self.spent += Cost(forward=len(tokens))
        with torch.set_grad_enabled(gradient is not None):
            logits = self.host.run(
                tokens,
                at,
                hooks,
                skip_mlps=self.clt.covered,
                start=start,
                lean=gradient is not None,
            )
        for logits_before in uncapped:
            logits = straight_through(logits, logits_before[:, 0].float())
        return Run(
            logits.view(n_sets, len(setup.batch), -1),
            tuple(assembly.terms),
            tuple(assembly.deltas),
            kept,
        )

    def reads(self, batch: Batch, layers: Sequence[int]) -> list[Tensor]:
        """What some layers read, from one pass of the model itself that stops at the last of them.

        Args:
            batch: Prompts.
            layers: One or more, ascending.

        Returns:
            `[batch, n_pos, d_model]` of each.
        """
        found: list[Tensor] = []
        hooks: list[tuple[str, Hook]] = [
            (f"blocks.{layer}.{self.read_hook}", found.append) for layer in layers
        ]
        last = layers[-1]
        self.spent += Cost(forward=len(batch))
        with torch.no_grad():
            at = batch.answer_position
            self.host.run(batch.tokens, at, hooks, skip_mlps=[last], stop=last + 1)
        return found

    def mean_activations(self, prompts: Sequence[Prompt], batch_size: int = 32) -> Means:
        """Mean of every feature over all positions of `prompts` that have features."""
        if not self.knows_means(prompts):
            sums = self.mean_sums()
            for _, batch in batches(prompts, batch_size, self.device):
                sums.add(self.mean_part(batch))
            self.keep_means(prompts, sums)
        return self._means[_tokens(prompts)]

    def mean_sums(self) -> MeanSums:
        """Nothing added up yet."""
        return MeanSums(self.clt.n_layers, self.clt.n_features)

    def mean_part(self, batch: Batch) -> MeanPart:
        """What a batch adds to the means."""
        with torch.no_grad():
            reads, *_ = self._observe(batch.tokens, batch)
            return MeanPart.of(self._encode(reads), batch.real & ~self.ignored(batch))

    def keep_means(self, prompts: Sequence[Prompt], sums: MeanSums) -> Means:
        """The means of `prompts`, whose batches are all in `sums`; remembered."""
        return self._means.setdefault(_tokens(prompts), sums.means(self.clt.b_dec))

    def knows_means(self, prompts: Sequence[Prompt]) -> bool:
        """Whether `mean_activations` of these prompts runs nothing."""
        return _tokens(prompts) in self._means

    def _baseline(self, batch: Batch, switches: Switches, mean_of: MeanOf) -> tuple[Columns, ...]:
        if switches.baseline == "mean":
            if not mean_of:
                raise PieFastError("baseline 'mean' needs the prompts to average over")
            means = mean_of if isinstance(mean_of, Means) else self.mean_activations(mean_of)
            return means.on(self.device)
        if switches.baseline == "counterfactual":
            if batch.counterfactual is None:
                raise BehaviorError(
                    "baseline 'counterfactual' needs a counterfactual for every prompt; "
                    "use baseline 'mean' or 'zero'"
                )
            reads, *_ = self._observe(batch.counterfactual, batch)
            return self._encode(reads)
        return (Columns.none(self.clt.b_dec[:1, None]),) * self.clt.n_layers

    def _observe(
        self, tokens: Tensor, batch: Batch, *, patterns: bool = False
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """What each layer reads and writes, its attention pattern, and the answer's logits.

        Patterns are `n_pos` squared: the list of them is empty unless they are asked for.
        """
        reads: list[Tensor] = []
        writes: list[Tensor] = []
        seen: list[Tensor] = []
        hooks: list[tuple[str, Hook]] = []
        for layer in range(self.clt.n_layers):
            if patterns:
                hooks.append((f"blocks.{layer}.attn.hook_pattern", seen.append))
            hooks.append((f"blocks.{layer}.{self.read_hook}", reads.append))
            hooks.append((f"blocks.{layer}.{self.write_hook}", writes.append))
        self.spent += Cost(forward=len(tokens))
        logits = self.host.run(tokens, batch.answer_position, hooks)
        _check_finite(batch, reads, writes, logits)
        return reads, writes, seen, logits

    def _encode(self, reads: list[Tensor]) -> tuple[Columns, ...]:
        dtype = self.clt.b_dec.dtype
        return tuple(
            Columns.none(x.to(dtype)) if encoder is None else encoder.encode(x.to(dtype))
            for encoder, x in zip(self.clt.encoders, reads, strict=True)
        )

    def _reconstruct(self, acts: Sequence[Columns], shape: Sequence[int]) -> tuple[Tensor, ...]:
        out = [b.expand(*shape, -1) for b in self.clt.b_dec]
        for layer, columns in enumerate(acts):
            if layer not in self.clt.covered:
                continue
            for target, part in self.clt.writes(layer, columns.ids, columns.values):
                out[target] = out[target] + part
        return tuple(out)

    def _with_skips(self, out: Sequence[Tensor], reads: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What linear paths add to a reconstruction, for layers that read `reads`."""
        dtype = self.clt.b_dec.dtype
        added = (self.clt.skip(layer, x.to(dtype)) for layer, x in enumerate(reads))
        return tuple(o if a is None else o + a for o, a in zip(out, added, strict=True))

    def _attention_hooks(
        self, setup: Setup, n_sets: int, gradient: str | None
    ) -> list[tuple[str, Hook]]:
        hooks: list[tuple[str, Hook]] = []
        if gradient is not None:
            rule = RULES[gradient]
            if setup.patterns is not None:
                rule = replace(rule, attention="constant")  # which they are already
            hooks += backward_hooks(rule, self.host.norms, self.clt.n_layers)
        for layer, patterns in enumerate(setup.patterns or ()):
            name = f"blocks.{layer}.attn.hook_pattern"
            hooks.append((name, _constant(_per_set(patterns, n_sets))))
        return hooks


def _tokens(prompts: Sequence[Prompt]) -> tuple[tuple[int, ...], ...]:
    return tuple(p.tokens for p in prompts)


def _per_set(x: Tensor, n_sets: int) -> Tensor:
    return x.repeat(n_sets, *[1] * (x.dim() - 1))


def _constant(value: Tensor) -> Hook:
    return lambda _: value


def _check_finite(
    batch: Batch, reads: Sequence[Tensor], writes: Sequence[Tensor], logits: Tensor
) -> None:
    """Refuse a model that overflows or holds NaN, before a number of it is stored.

    Raises:
        CheckpointError: With the first layer and its first prompt.
    """
    fine = [r.isfinite().all(-1) & w.isfinite().all(-1) for r, w in zip(reads, writes, strict=True)]
    broken = ~torch.stack(fine) & batch.real
    silent = logits.isnan().any(-1)
    # One look at the device a batch, whatever the number of layers.
    if not bool(broken.any() | silent.any()):
        return
    if not bool(broken.any()):
        prompt = batch.first + int(silent.nonzero()[0])
        raise CheckpointError(f"the model's logits on prompt {prompt} hold NaN")
    # No position: attention masks by adding, so NaN spreads to earlier positions too.
    layer, row = (int(i) for i in broken.any(-1).nonzero()[0])
    raise CheckpointError(
        f"layer {layer} of the model reads or writes NaN or infinite values on prompt "
        f"{batch.first + row}"
    )


def _check_slots(setup: Setup, gates: Tensor) -> None:
    if setup.slots is None:
        raise PieFastError("gates by slot need a setup with slots; this one has none")
    most = int(setup.slots.max())
    if most >= gates.shape[1]:
        raise PieFastError(f"gates are of {gates.shape[1]} slots, the prompts have slot {most}")


def _check_fit(host: Host, clt: Clt) -> None:
    for what, ours, theirs in (
        ("d_model", clt.d_model, host.d_model),
        ("number of layers", clt.n_layers, host.n_layers),
    ):
        if ours != theirs:
            raise CheckpointError(
                f"the CLT {clt.name} has {what} {ours}, the model {host.name} has {theirs}"
            )
