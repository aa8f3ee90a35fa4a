"""Direct paths: a run of the model itself in which every MLP output is a constant of its own.

Features then act on what layers read, and on the logits, through attention and norms alone, none
through another feature. With patterns and norm scales constant as well (`frozen`) all that is left
is linear: circuit-tracer's local replacement model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pie_fast.cost import Cost
from pie_fast.gradients import RULES, check_gradient
from pie_fast.model.backward import backward_hooks, straight_through
from pie_fast.model.batch import Batch
from pie_fast.model.host import Hook
from pie_fast.model.replacement import Replacer


@dataclass(frozen=True)
class Direct:
    """One run; its tensors are connected, so that any of them can be differentiated by the leaves.

    Attributes:
        reads: Per layer `[batch, n_pos, d_model]`, what its features read.
        logits: `[batch, vocab]` at the answer position.
        embedded: `[batch, n_pos, d_model]`, a leaf: the embedded tokens.
        writes: Per layer `[batch, n_pos, d_model]`, leaves: what is written there.
    """

    reads: tuple[Tensor, ...]
    logits: Tensor
    embedded: Tensor
    writes: tuple[Tensor, ...]


def direct_paths(model: Replacer, batch: Batch, gradient: str = "frozen") -> Direct:
    """Run prompts so that direct effects can be read off backward passes.

    No value is changed: reads and logits are the model's own.

    Args:
        model: The replacement model.
        batch: Prompts.
        gradient: A rule of `pie_fast.gradients`, of norms, attention and softcap; features are
            constants whatever it says of them.

    Raises:
        PieFastError: Unknown rule.
    """
    check_gradient(gradient)
    rule = replace(RULES[gradient], features=False)
    taken = _Taken(model, batch)
    hooks = backward_hooks(rule, model.host.norms, model.host.n_layers)
    hooks += [("embed.hook_out", taken.embed), *taken.of_layers()]
    uncapped: list[Tensor] = []
    if not rule.softcap:
        hooks.append(("unembed.hook_out", uncapped.append))
    model.spent += Cost(forward=len(batch))
    with torch.enable_grad():
        logits = model.host.run(batch.tokens, batch.answer_position, hooks, lean=True)
        for before in uncapped:
            logits = straight_through(logits, before[:, 0].float())
    return Direct(tuple(taken.reads), logits, taken.embedded[0], tuple(taken.writes))


class _Taken:
    """Hooks that make leaves, and what they have seen."""

    def __init__(self, model: Replacer, batch: Batch) -> None:
        self.model, self.ignored = model, model.ignored(batch)[..., None]
        self.embedded: list[Tensor] = []
        self.reads: list[Tensor] = []
        self.writes: list[Tensor] = []

    def embed(self, x: Tensor) -> Tensor:
        self.embedded.append(x.detach().requires_grad_())
        return self.embedded[0]

    def of_layers(self) -> list[tuple[str, Hook]]:
        hooks: list[tuple[str, Hook]] = []
        for layer in range(self.model.host.n_layers):
            hooks.append((f"blocks.{layer}.{self.model.read_hook}", self._read))
            hooks.append((f"blocks.{layer}.{self.model.write_hook}", self._write))
        return hooks

    def _read(self, x: Tensor) -> None:
        self.reads.append(x.to(self.model.clt.b_dec.dtype))

    def _write(self, out: Tensor) -> Tensor:
        self.writes.append(out.detach().requires_grad_())
        layer = len(self.writes) - 1
        skipped = self.model.clt.skip(layer, self.reads[layer])
        if skipped is None:
            return self.writes[layer]
        # A transcoder's linear path is no constant, but where the model's own MLP stays.
        moved = (skipped - skipped.detach()).masked_fill(self.ignored, 0.0)
        return self.writes[layer] + moved.to(out.dtype)
