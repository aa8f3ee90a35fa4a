"""`tiny`'s GPT-2 and CLT written out in float64 with no library but torch: an oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2LMHeadModel

N_HEADS = 4

#: (layer, what the MLP reads, what it writes) -> what is written instead
Edit = Callable[[int, Tensor, Tensor], Tensor]


@dataclass
class Seen:
    """One run.

    Attributes:
        logits: `[n_pos, vocab]`.
        embedded: `[n_pos, d_model]`, token embeddings alone.
        reads, writes: Per layer `[n_pos, d_model]`, of the MLPs.
        patterns: Per layer `[n_heads, n_pos, n_pos]`.
        scales: By norm `[n_pos, 1]`.
    """

    embedded: Tensor
    logits: Tensor = field(default_factory=lambda: torch.zeros(0))
    reads: list[Tensor] = field(default_factory=list)
    writes: list[Tensor] = field(default_factory=list)
    patterns: list[Tensor] = field(default_factory=list)
    scales: dict[str, Tensor] = field(default_factory=dict)


class PlainGpt2:
    """A GPT-2 of any size with 4 heads."""

    def __init__(self, folder: Path) -> None:
        hf = GPT2LMHeadModel.from_pretrained(folder)
        self.w = {name: p.detach().double() for name, p in hf.state_dict().items()}
        self.n_layers = hf.config.n_layer

    @property
    def unembedding(self) -> Tensor:
        """`[d_model, vocab]`."""
        return self.w["lm_head.weight"].T

    def run(
        self,
        tokens: tuple[int, ...],
        edit: Edit = lambda _layer, _read, out: out,
        *,
        held: Seen | None = None,
        hold: tuple[str, ...] = (),
    ) -> Seen:
        """Forward; `hold` names what is as in `held`: attention, activations, norms."""
        seen = Seen(self.w["transformer.wte.weight"][list(tokens)])
        x = seen.embedded + self.w["transformer.wpe.weight"][: len(tokens)]
        scales = held.scales if held is not None and "norms" in hold else {}
        for layer in range(self.n_layers):
            block = f"transformer.h.{layer}"
            pattern = held.patterns[layer] if held is not None and "attention" in hold else None
            x = x + self._attention(
                block, self._norm(f"{block}.ln_1", x, scales, seen), pattern, seen
            )
            read = self._norm(f"{block}.ln_2", x, scales, seen)
            hidden = self._linear(f"{block}.mlp.c_fc", read)
            hidden = torch.nn.functional.gelu(hidden, approximate="tanh")
            out = self._linear(f"{block}.mlp.c_proj", hidden)
            if held is not None and "activations" in hold:
                out = held.writes[layer]
            seen.reads.append(read)
            seen.writes.append(out)
            x = x + edit(layer, read, out)
        x = self._norm("transformer.ln_f", x, scales, seen)
        seen.logits = x @ self.unembedding
        return seen

    def direct(self, seen: Seen, start: Tensor, writes: list[Tensor]) -> Tensor:
        """What writes into the residual stream do to the final norm's output, all else frozen.

        Attention patterns and norm scales are those of `seen`, MLPs are constants: what is left is
        linear, so a perturbation alone is carried forward and nothing is differentiated.

        Args:
            start: `[n, n_pos, d_model]`, added to the embedding.
            writes: Per layer `[n, n_pos, d_model]`, added to the MLP's output.
        """
        x = start
        for layer in range(self.n_layers):
            block = f"transformer.h.{layer}"
            normed = self._scaled(f"{block}.ln_1", x, seen)
            value = normed @ self.w[f"{block}.attn.c_attn.weight"].split(x.shape[-1], -1)[2]
            heads = value.unflatten(-1, (N_HEADS, -1)).transpose(-2, -3)
            mixed = (seen.patterns[layer] @ heads).transpose(-2, -3).flatten(-2)
            x = x + mixed @ self.w[f"{block}.attn.c_proj.weight"] + writes[layer]
        return self._scaled("transformer.ln_f", x, seen)

    def _scaled(self, name: str, x: Tensor, seen: Seen) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / seen.scales[name] * self.w[f"{name}.weight"]

    def _norm(self, name: str, x: Tensor, scales: dict[str, Tensor], seen: Seen) -> Tensor:
        variance = (x - x.mean(-1, keepdim=True)).pow(2).mean(-1, keepdim=True)
        seen.scales[name] = scales.get(name, (variance + 1e-5).sqrt())
        return self._scaled(name, x, seen) + self.w[f"{name}.bias"]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def _attention(self, block: str, x: Tensor, pattern: Tensor | None, seen: Seen) -> Tensor:
        parts = self._linear(f"{block}.attn.c_attn", x).split(x.shape[-1], -1)
        q, k, v = (part.unflatten(-1, (N_HEADS, -1)).transpose(0, 1) for part in parts)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        own = scores.masked_fill(future, -torch.inf).softmax(-1)
        seen.patterns.append(own if pattern is None else pattern)
        mixed = (seen.patterns[-1] @ v).transpose(0, 1).flatten(-2)
        return self._linear(f"{block}.attn.c_proj", mixed)


class PlainClt:
    """A CLT folder in circuit-tracer's layout."""

    def __init__(self, folder: Path, n_layers: int) -> None:
        self.n_layers = n_layers
        self.w: dict[str, Tensor] = {}
        for layer in range(n_layers):
            for kind in ("enc", "dec"):
                tensors = load_file(folder / f"W_{kind}_{layer}.safetensors")
                self.w |= {name: tensor.double() for name, tensor in tensors.items()}

    def encode(self, layer: int, x: Tensor) -> Tensor:
        """`[n_pos, d_model]` -> `[n_pos, n_features]`."""
        pre = x @ self.w[f"W_enc_{layer}"].T + self.w[f"b_enc_{layer}"]
        return torch.where(pre > self.w[f"threshold_{layer}"], pre, 0.0)

    def row(self, layer: int, feature: int, target: int) -> Tensor:
        """What a feature writes to a layer: `[d_model]`."""
        return self.w[f"W_dec_{layer}"][feature, target - layer]

    def rebuilt(self, target: int, acts: list[Tensor]) -> Tensor:
        """`[n_pos, d_model]` by the activations of all layers."""
        out = self.w[f"b_dec_{target}"]
        for source in range(target + 1):
            out = out + acts[source] @ self.w[f"W_dec_{source}"][:, target - source]
        return out
