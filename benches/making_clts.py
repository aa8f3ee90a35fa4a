"""A large transcoder whose decoders are holes in a sparse file, but for the features that can fire.

Features that are not alive have a bias that no input overcomes, and zeros for weights, so that a
file of many GB takes little room on disk and is still a whole CLT to whoever reads it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from pie_fast.storage import to_bf16


class Shape(NamedTuple):
    """Layers, features a layer, width, and features a layer that are alive."""

    n_layers: int
    n_features: int
    d_model: int
    n_alive: int

    @property
    def decoder_bytes(self) -> int:
        """Of all decoders as bf16."""
        return self.n_features * self.n_layers * (self.n_layers + 1) // 2 * self.d_model * 2


def alive(shape: Shape, layer: int) -> np.ndarray:
    """The features of a layer that can fire, ascending."""
    rng = np.random.default_rng(100 + layer)
    return np.sort(rng.choice(shape.n_features, shape.n_alive, replace=False))


def write_large(folder: Path, shape: Shape) -> Path:
    """All of it, mostly holes."""
    return _write(folder, shape, shape.n_features, [alive(shape, n) for n in range(shape.n_layers)])


def write_alive(folder: Path, shape: Shape) -> Path:
    """The same transcoder with only the features that are alive: every number must be the same."""
    every = np.arange(shape.n_alive)
    return _write(folder, shape, shape.n_alive, [every] * shape.n_layers)


def write_model(folder: Path, shape: Shape, vocab: int = 500, n_ctx: int = 64) -> Path:
    """A random GPT-2 that fits it; prompts are token ids."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab,
        n_positions=n_ctx,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=8,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def _write(folder: Path, shape: Shape, n_features: int, places: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for layer, place in enumerate(places):
        rng = np.random.default_rng(layer)
        encoder = torch.zeros(n_features, shape.d_model, dtype=torch.bfloat16)
        bias = torch.full((n_features,), -1e4)
        weight = rng.normal(size=(shape.n_alive, shape.d_model)) / math.sqrt(shape.d_model)
        encoder[place] = torch.from_numpy(weight).bfloat16()
        bias[place] = -0.5
        small = {
            f"W_enc_{layer}": encoder,
            f"b_enc_{layer}": bias,
            f"b_dec_{layer}": torch.zeros(shape.d_model),
        }
        save_file(small, folder / f"W_enc_{layer}.safetensors")
        row = (shape.n_layers - layer) * shape.d_model
        # Small writes: through many layers larger ones amplify rounding until nothing agrees.
        rows = to_bf16((rng.normal(size=(shape.n_alive, row)) * 0.0005).astype(np.float32))
        _write_sparse(
            folder / f"W_dec_{layer}.safetensors",
            f"W_dec_{layer}",
            (n_features, shape.n_layers - layer, shape.d_model),
            place,
            rows,
        )
    (folder / "config.yaml").write_text(
        "model_kind: cross_layer_transcoder\n"
        "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    return folder


def _write_sparse(
    path: Path, name: str, shape: tuple[int, ...], place: np.ndarray, rows: np.ndarray
) -> None:
    size = 2 * math.prod(shape)
    entry = {name: {"dtype": "BF16", "shape": list(shape), "data_offsets": [0, size]}}
    header = json.dumps(entry).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        start = file.tell()
        file.truncate(start + size)
        for feature, row in zip(place.tolist(), rows, strict=True):
            file.seek(start + feature * row.nbytes)
            file.write(row.tobytes())
