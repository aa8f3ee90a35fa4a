"""The replacement model of any family, written out on plain HuggingFace modules: an oracle.

What a hook name means is said here anew, by module and side (circuit-tracer's mapping): nothing of
the package and nothing of TransformerLens is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import families
from pie_fast.behaviors import Prompt

#: the norm before the MLP
_NORM = {
    "gpt2": "ln_2",
    "llama": "post_attention_layernorm",
    "gemma2": "pre_feedforward_layernorm",
    "gemma3": "pre_feedforward_layernorm",
    "qwen3": "post_attention_layernorm",
}
_POST_NORM = {"gemma2": "post_feedforward_layernorm", "gemma3": "post_feedforward_layernorm"}


class Plain:
    """A checkpoint with a CLT between two hooks.

    Attributes:
        hf: The HuggingFace model.
        fixed: Norms divide by constants, as `frozen_norms` has it.
    """

    def __init__(self, family: str, model: Path, clt: Path, read: str, write: str) -> None:
        self.family, self.read, self.write = family, read, write
        self.hf = families.HfModel.from_pretrained(model, attn_implementation="eager").eval()
        self.hf.requires_grad_(False)
        self.fixed = False
        self.layers = []
        for layer in range(families.N_LAYERS):
            tensors = load_file(clt / f"W_enc_{layer}.safetensors")
            tensors |= load_file(clt / f"W_dec_{layer}.safetensors")
            self.layers.append({k.removesuffix(f"_{layer}"): v for k, v in tensors.items()})

    @property
    def blocks(self) -> Any:
        return self.hf.transformer.h if self.family == "gpt2" else self.hf.model.layers

    def written_module(self, layer: int, model: Any = None) -> torch.nn.Module:
        """The module whose output features write."""
        blocks = self.blocks if model is None else model.get_submodule(self._blocks_name)
        after = _POST_NORM.get(self.family, "mlp") if self.write == "hook_mlp_out" else "mlp"
        found: torch.nn.Module = getattr(blocks[layer], after)
        return found

    @property
    def _blocks_name(self) -> str:
        return "transformer.h" if self.family == "gpt2" else "model.layers"

    def logits(
        self,
        tokens: tuple[int, ...],
        at_read: Callable[[int, Tensor], None] | None = None,
        at_write: Callable[[int, Tensor], Tensor | None] | None = None,
    ) -> Tensor:
        """`[n_pos, vocab]`; the callbacks get `[n_pos, d_model]`."""
        hooks = []
        for layer, block in enumerate(self.blocks):
            norm = getattr(block, _NORM[self.family])

            def read(module: Any, x: Any, out: Tensor, layer: int = layer) -> None:
                if at_read is not None:
                    at_read(layer, self._tensor_read(module, x[0], out)[0])

            def write(module: Any, x: Any, out: Tensor, layer: int = layer) -> Tensor | None:
                new = None if at_write is None else at_write(layer, out[0])
                return None if new is None else new[None]

            hooks.append(norm.register_forward_hook(read))
            hooks.append(self.written_module(layer).register_forward_hook(write))
        try:
            found: Tensor = self.hf(torch.tensor([tokens])).logits[0]
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def observe(self, tokens: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """What every layer reads and writes."""
        reads: list[Tensor] = []
        writes: list[Tensor] = []
        with torch.no_grad():
            self.logits(tokens, lambda _, x: reads.append(x), lambda _, x: writes.append(x))
        return reads, writes

    def encode(self, layer: int, x: Tensor) -> Tensor:
        part = self.layers[layer]
        pre = x @ part["W_enc"].T + part["b_enc"]
        return torch.where(pre > part["threshold"], pre, torch.zeros_like(pre))

    def rebuild(self, target: int, acts: list[Tensor]) -> Tensor:
        out = self.layers[target]["b_dec"].clone()
        for source in range(target + 1):
            out = out + acts[source] @ self.layers[source]["W_dec"][:, target - source]
        return out

    def gated(self, prompt: Prompt, gates: Tensor, *, react: bool = True) -> Tensor:
        """Logits at the answer with each activation times its gate, errors constant.

        Args:
            prompt: Whose first token is a BOS, where nothing is replaced.
            gates: `[n_layers, n_features]`.
            react: Features react to what features below them write, in the backward pass.
        """
        reads, own = self.observe(prompt.tokens)
        clean = [self.encode(layer, x) for layer, x in enumerate(reads)]
        acts: list[Tensor] = []

        def at_read(layer: int, x: Tensor) -> None:
            acts.append(self.encode(layer, x if react else x.detach()) * gates[layer])

        def at_write(layer: int, out: Tensor) -> Tensor:
            rebuilt = self.rebuild(layer, acts) + (own[layer] - self.rebuild(layer, clean))
            return torch.cat([own[layer][:1], rebuilt[1:]])

        return self.logits(prompt.tokens, at_read, at_write)[prompt.answer_position]

    def effects(self, prompt: Prompt, *, react: bool = True) -> Tensor:
        """Derivative of the logit difference by every gate at the clean run, flat."""
        gates = torch.ones(families.N_LAYERS, families.N_FEATURES, requires_grad=True)
        logits = self.gated(prompt, gates, react=react)
        assert prompt.foil is not None
        (found,) = torch.autograd.grad(logits[prompt.answer] - logits[prompt.foil], gates)
        return found.flatten()

    @contextmanager
    def without_softcap(self) -> Iterator[None]:
        """The final logits as they are before Gemma 2 caps them."""
        config = self.hf.config
        cap = getattr(config, "final_logit_softcapping", None)
        if cap is not None:
            config.final_logit_softcapping = None
        try:
            yield
        finally:
            if cap is not None:
                config.final_logit_softcapping = cap

    @contextmanager
    def frozen_norms(self) -> Iterator[None]:
        """What norms divide by is a constant of the backward pass."""
        norms = [m for m in self.hf.modules() if "Norm" in type(m).__name__]
        assert len(norms) > 2 * families.N_LAYERS
        for norm in norms:
            norm.forward = lambda x, norm=norm: _with_fixed_scale(norm, x)
        self.fixed = True
        try:
            yield
        finally:
            self.fixed = False
            for norm in norms:
                del norm.forward

    def _tensor_read(self, norm: Any, x: Tensor, out: Tensor) -> Tensor:
        if self.read == "hook_resid_mid":
            return x
        if self.read == "mlp.hook_in":
            return out
        assert self.read == "ln2.hook_normalized"
        if self.family.startswith("gemma") and not self.fixed:
            normalized: Tensor = norm._norm(x.float())
            return normalized
        return _normalized(norm, x, fixed=self.fixed)


@contextmanager
def frozen_patterns() -> Iterator[None]:
    """Attention patterns are constants of the backward pass."""
    softmax, calls = torch.nn.functional.softmax, []

    def constant(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return softmax(*args, **kwargs).detach()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "softmax", constant)
        yield
    assert calls, "attention went another way"


def _normalized(norm: Any, x: Tensor, *, fixed: bool) -> Tensor:
    eps = next(getattr(norm, n) for n in ("eps", "variance_epsilon") if hasattr(norm, n))
    if isinstance(norm, torch.nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    scale = (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return x / (scale.detach() if fixed else scale)


def _with_fixed_scale(norm: Any, x: Tensor) -> Tensor:
    gain = 1.0 + norm.weight if "Gemma" in type(norm).__name__ else norm.weight
    out = _normalized(norm, x, fixed=True) * gain
    return out + norm.bias if isinstance(norm, torch.nn.LayerNorm) else out
