"""The language model itself: a TransformerBridge, driven by hooks.

Three things make replacement runs cheap. The MLPs are stepped over, because their output is
replaced anyway; so are the blocks below a prefix; and only the answer position is unembedded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pie_fast.errors import CheckpointError

#: what a hook gets and may replace
Hook = Callable[[Tensor], Tensor | None]


class Host:
    """A booted bridge with its parameters frozen.

    Attributes:
        bridge: The TransformerBridge.
        tokenizer: The model's own, or None.
        n_layers, d_model, n_ctx, vocab_size: Its sizes.
    """

    def __init__(self, bridge: Any, name: str) -> None:
        self.bridge = bridge.eval()
        self.tokenizer = _usable(bridge.tokenizer)
        self.name = name
        self.n_layers = int(bridge.cfg.n_layers)
        self.d_model = int(bridge.cfg.d_model)
        self.n_ctx = int(bridge.cfg.n_ctx)
        self.vocab_size = int(bridge.cfg.d_vocab)
        for parameter in bridge.parameters():
            parameter.requires_grad_(False)
        self._returns_tuple = False
        self._learn_returned()

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        device: torch.device = next(self.bridge.parameters()).device
        return device

    @property
    def bos(self) -> int | None:
        """The token that prompts begin with, of the tokenizer or else of the model."""
        if self.tokenizer is not None:
            found = self.tokenizer.bos_token_id
        else:
            found = getattr(self.bridge.original_model.config, "bos_token_id", None)
        return found if isinstance(found, int) else None

    @property
    def centres(self) -> bool:
        """Whether the final norm removes the mean of what it reads (LayerNorm, not RMSNorm)."""
        return not self.bridge.ln_final.uses_rms_norm

    def hook_point(self, name: str) -> str:
        """The hook point that sees here what transcoders were trained on at `name`.

        They were trained on HookedTransformer, unprocessed. Its LayerNorm calls its output, gain
        and bias applied, `hook_normalized`; its RMSNorm, and the bridge in both cases, what the
        gain is applied to. What it calls `hook_mlp_in` is what the second norm reads.
        """
        if name == "ln2.hook_normalized" and self.centres:
            return "ln2.hook_out"
        return "hook_resid_mid" if name == "hook_mlp_in" else name

    def check_hooks(self, names: list[str]) -> None:
        """Refuse hook points that this architecture does not have.

        Raises:
            CheckpointError: With the hook points of a block that there are.
        """
        known = self.bridge.hook_dict
        for name in names:
            full = f"blocks.0.{name}"
            if full not in known:
                block = sorted(
                    n.removeprefix("blocks.0.") for n in known if n.startswith("blocks.0.")
                )
                raise CheckpointError(
                    f"the CLT names hook {name!r}, which {self.name} does not have; it has {block}"
                )

    def run(
        self,
        tokens: Tensor,
        answer_position: Tensor,
        hooks: list[tuple[str, Hook]],
        *,
        skip_mlps: Collection[int] = (),
        start: int = 0,
    ) -> Tensor:
        """One forward pass.

        Args:
            tokens: `[n, n_pos]`.
            answer_position: `[n]`, the position whose logits are wanted.
            hooks: Full hook names with what to call there, in order of the pass.
            skip_mlps: Layers whose MLPs are stepped over; a hook must then replace their outputs.
            start: Step over the blocks below this one; what enters it must then be replaced by a
                hook. (TransformerLens' `start_at_layer` computes them and drops the outcome.)

        Returns:
            `[n, vocab]` float32 logits.
        """
        rows = torch.arange(len(tokens), device=tokens.device)

        def at_answer(x: Tensor) -> Tensor:
            return x[rows, answer_position][:, None]

        points = [(name, _without_name(hook)) for name, hook in hooks]
        points.append(("unembed.hook_in", _without_name(at_answer)))
        with self.bridge.hooks(fwd_hooks=points), self._stepped_over(skip_mlps, start):
            logits: Tensor = self.bridge(tokens, return_type="logits")
        answers: Tensor = logits[:, 0].float()
        return answers

    def unembedding(self) -> Tensor:
        """`[d_model, vocab]` with the final norm's gain folded in: what a write promotes."""
        gain = self.bridge.ln_final.original_component.weight.float()
        if self.bridge.ln_final.uses_weight_offset:
            gain = 1.0 + gain
        head = self.bridge.original_model.get_output_embeddings().weight.float()
        folded: Tensor = gain[:, None] * head.T
        return folded

    def _learn_returned(self) -> None:
        """See in the first pass whether blocks return a tuple: that depends on architecture."""

        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._returns_tuple = isinstance(output, tuple)
            seen.remove()

        seen = self.bridge.blocks[0].original_component.register_forward_hook(look)

    @contextmanager
    def _stepped_over(self, mlps: Collection[int], n_blocks: int) -> Iterator[None]:
        stepped: dict[nn.Module, Callable[..., Any]] = {}
        for layer, block in enumerate(self.bridge.blocks):
            if layer < n_blocks:
                stepped[block.original_component] = self._block_stub
            elif layer in mlps:
                stepped[block.mlp.original_component] = _stub
        for module, stub in stepped.items():
            module.forward = stub
        try:
            yield
        finally:
            for module in stepped:
                del module.forward

    def _block_stub(self, x: Tensor, *_: Any, **__: Any) -> Any:
        return (x,) if self._returns_tuple else x


def _stub(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _usable(tokenizer: Any) -> Any:
    """None for what transformers invents where a checkpoint has none: special tokens only."""
    if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_ids):
        return None
    return tokenizer


def _without_name(hook: Hook) -> Callable[..., Tensor | None]:
    # TransformerLens passes the hook point too; nothing here needs it.
    return lambda x, hook=None, call=hook: call(x)
