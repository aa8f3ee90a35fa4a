"""What goes into replacement runs of a batch, and what comes out of one."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from pie_fast.clt import Columns
from pie_fast.model.batch import Batch
from pie_fast.model.settings import Switches


@dataclass(frozen=True)
class Setup:
    """What all runs of one batch share.

    Attributes:
        batch: The prompts.
        switches: Of these runs.
        logits: `[batch, vocab]` of the model itself at the answer position.
        clean: Activations on the prompts, one `Columns` a layer, values `[batch, n_pos, n]`.
        baseline: The baseline `b`, likewise; values may be `[1, 1, n]`.
        empty_out: Per layer `[batch, n_pos, d_model]`: reconstruction at the baseline.
        error: Per layer `[batch, n_pos, d_model]`, or zeros of `[1, 1, d_model]` when dropped.
        mlp_out: Per layer `[batch, n_pos, d_model]`, the model's own.
        patterns: Per layer `[batch, n_heads, n_pos, n_pos]` when attention is frozen.
        ignored: `[batch, n_pos]` bool, where the model's own MLP output stays.
        slots: `[batch, n_pos]` int64 where gates are given by slot; -1 is none, where features do
            what the rest does.
        written: What layers up to a layer write on the clean run, filled when first needed.
    """

    batch: Batch
    switches: Switches
    logits: Tensor
    clean: tuple[Columns, ...]
    baseline: tuple[Columns, ...]
    empty_out: tuple[Tensor, ...]
    error: tuple[Tensor, ...]
    mlp_out: tuple[Tensor, ...]
    patterns: tuple[Tensor, ...] | None
    ignored: Tensor
    slots: Tensor | None = None
    written: dict[int, dict[int, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def counted(self) -> Tensor:
        """`[batch, n_pos]` bool: positions that have features, padding left out."""
        return self.batch.real & ~self.ignored


@dataclass(frozen=True)
class Prefix:
    """Where a run stands when it enters a block: what agrees with it below can go on from here.

    Attributes:
        layer: The block that comes next.
        residual: `[batch, n_pos, d_model]` that enters it.
        first: The run's `Assembly.first`.
        writes: What the features below wrote to each layer from this one on, `[batch, n_pos,
            d_model]`; None where everything below is the clean run's.
    """

    layer: int
    residual: Tensor
    first: int
    writes: tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Run:
    """The outcome of one replacement run over `n_sets` gate settings.

    Attributes:
        logits: `[n_sets, batch, vocab]` at the answer position.
        terms: Per layer the ids of the features in play and their `A` (`[n_sets * batch, n_pos,
            n]`), connected to the logits when gradients were asked for. With a pool and the rest
            free, layers up to the first moved one have the pool's features only, or none; so have
            layers below a prefix.
        deltas: Per layer `a - b` of the same, detached.
        prefixes: By layer, those that were to be kept.
    """

    logits: Tensor
    terms: tuple[Columns, ...]
    deltas: tuple[Tensor, ...]
    prefixes: dict[int, Prefix] = field(default_factory=dict)
