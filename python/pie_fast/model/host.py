"""The language model itself: a TransformerBridge, driven by hooks.

Three things make replacement runs cheap. The MLPs are stepped over, because their output is
replaced anyway; so are the blocks below a prefix and above what is looked at; and only the answer
position is unembedded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pie_fast.model.lean import LONG, forget_pattern, lean_attention

#: what a hook gets and may replace
Hook = Callable[[Tensor], Tensor | None]


class Host:
    """A booted bridge with its parameters frozen.

    Attributes:
        bridge: The TransformerBridge.
        tokenizer: The model's own (the bridge's, unless another was given), or None.
        n_layers, d_model, n_ctx, vocab_size: Its sizes.
        autocast: The dtype that its passes are computed in where torch finds that safe; None: its
            weights' own. What hooks do is never autocast.
    """

    def __init__(self, bridge: Any, name: str, tokenizer: Any = None) -> None:
        self.bridge = bridge.eval()
        self.tokenizer = usable_tokenizer(bridge.tokenizer if tokenizer is None else tokenizer)
        self.name = name
        self.autocast: torch.dtype | None = None
        self.n_layers = int(bridge.cfg.n_layers)
        self.d_model = int(bridge.cfg.d_model)
        self.n_ctx = int(bridge.cfg.n_ctx)
        self.vocab_size = int(bridge.cfg.d_vocab)
        for parameter in bridge.parameters():
            parameter.requires_grad_(False)
        for block in bridge.blocks:
            block.attn.register_forward_hook(lambda attention, *_: forget_pattern(attention))
        self._returns_tuple = False
        self._learn_returned()

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        device: torch.device = next(self.bridge.parameters()).device
        return device

    @property
    def dtypes(self) -> dict[str, str | None]:
        """`model`, of the weights, and `autocast`: for manifests and results."""
        weights = next(self.bridge.parameters()).dtype
        autocast = None if self.autocast is None else _name(self.autocast)
        return {"model": _name(weights), "autocast": autocast}

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

    @property
    def block_points(self) -> set[str]:
        """Names of the hook points of a block, without `blocks.{l}.`."""
        first = "blocks.0."
        return {n.removeprefix(first) for n in self.bridge.hook_dict if n.startswith(first)}

    @property
    def norms(self) -> dict[str, Any]:
        """Every norm of the bridge, by name."""
        names = [n.rpartition(".") for n in self.bridge.hook_dict]
        return {
            name: self.bridge.get_submodule(name)
            for name, _, point in names
            if point == "hook_scale"
        }

    def run(
        self,
        tokens: Tensor,
        answer_position: Tensor | None,
        hooks: list[tuple[str, Hook]],
        *,
        skip_mlps: Collection[int] = (),
        start: int = 0,
        stop: int | None = None,
        lean: bool = False,
    ) -> Tensor:
        """One forward pass.

        Args:
            tokens: `[n, n_pos]`.
            answer_position: `[n]`, the position whose logits are wanted; None for every position.
            hooks: Full hook names with what to call there, in order of the pass.
            skip_mlps: Layers whose MLPs are stepped over; a hook must then replace their outputs.
            start: Step over the blocks below this one; what enters it must then be replaced by a
                hook. (TransformerLens' `start_at_layer` computes them and drops the outcome.)
            stop: Step over the blocks from this one on; the logits then mean nothing.
            lean: Keep no attention pattern for the backward pass of a long prompt; see
                `pie_fast.model.lean`.

        Returns:
            `[n, vocab]` float32 logits, `[n, n_pos, vocab]` of every position, as the model gives
            them: after the final softcap where it has one.
        """
        rows = torch.arange(len(tokens), device=tokens.device)

        def at_answer(x: Tensor) -> Tensor:
            return x if answer_position is None else x[rows, answer_position][:, None]

        if self.autocast is not None:
            hooks = [(name, _as_it_is(hook, tokens.device.type)) for name, hook in hooks]
        points = [(name, _without_name(hook)) for name, hook in hooks]
        points.append(("unembed.hook_in", _without_name(at_answer)))
        lean = lean and tokens.shape[1] >= LONG
        with (
            self.bridge.hooks(fwd_hooks=points),
            self._stepped_over(skip_mlps, start, self.n_layers if stop is None else stop),
            lean_attention(self.bridge, points) if lean else nullcontext(),
            torch.autocast(tokens.device.type, self.autocast, self.autocast is not None),
            warnings.catch_warnings(),
        ):
            # of norms whose scale a gradient rule holds; their values are put back
            warnings.filterwarnings("ignore", message="A forward hook edited hook_scale")
            # A cache of keys and values would serve the next token, which nobody asks for.
            logits: Tensor = self.bridge(tokens, return_type="logits", use_cache=False)
        answers: Tensor = (logits if answer_position is None else logits[:, 0]).float()
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
    def _stepped_over(self, mlps: Collection[int], start: int, stop: int) -> Iterator[None]:
        stepped: dict[nn.Module, Callable[..., Any]] = {}
        for layer, block in enumerate(self.bridge.blocks):
            if not start <= layer < stop:
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


def usable_tokenizer(tokenizer: Any) -> Any:
    """None for what transformers invents where a checkpoint has none: special tokens only."""
    if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_ids):
        return None
    return tokenizer


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _as_it_is(hook: Hook, device: str) -> Hook:
    def call(x: Tensor) -> Tensor | None:
        with torch.autocast(device, enabled=False):
            return hook(x)

    return call


def _without_name(hook: Hook) -> Callable[..., Tensor | None]:
    # TransformerLens passes the hook point too; nothing here needs it.
    return lambda x, hook=None, call=hook: call(x)
