"""Random models and CLTs of any size, in the real formats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import pie_fast
from pie_fast.behaviors import Behavior, Prompt


@dataclass(frozen=True)
class Sizes:
    """Of a random Llama and its CLT.

    Attributes:
        active: Features that are active on a token, a layer.
    """

    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    vocab: int
    n_features: int
    active: int
    n_ctx: int = 2048


#: Llama 3.2 1B, with a CLT of 16 x 32,768 features
ONE_B = Sizes(16, 2048, 8192, 32, 8, 128_256, 32_768, 64)
SMALL = Sizes(6, 128, 256, 8, 4, 500, 1024, 20)
TINY = Sizes(3, 32, 64, 4, 2, 60, 64, 6, 256)


def random_model(
    sizes: Sizes, folder: Path, device: str, *, zeros: bool = False
) -> pie_fast.ReplacementModel:
    """Both, loaded.

    Args:
        sizes: Of both.
        folder: The CLT's files are written there.
        device: Where they go.
        zeros: Decoders are files without blocks, which read as 0 and take no disk.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.d_model,
        intermediate_size=sizes.d_mlp,
        num_hidden_layers=sizes.n_layers,
        num_attention_heads=sizes.n_heads,
        num_key_value_heads=sizes.n_kv_heads,
        max_position_embeddings=sizes.n_ctx,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.08,
    )
    write_clt(sizes, folder, zeros)
    tokenizer = AutoTokenizer.from_pretrained(pie_fast.demo_model_path())
    with torch.device(pie_fast.model.resolve_device(device)):
        model = LlamaForCausalLM(config)
    return pie_fast.load_model(model, str(folder), tokenizer=tokenizer, device=device)


def write_clt(sizes: Sizes, folder: Path, zeros: bool) -> None:
    # What is read has been normed: pre-activations are standard normal, and so many exceed this.
    threshold = NormalDist().inv_cdf(1 - sizes.active / sizes.n_features)
    for layer in range(sizes.n_layers):
        encoder = {
            f"W_enc_{layer}": torch.randn(sizes.n_features, sizes.d_model) * sizes.d_model**-0.5,
            f"b_enc_{layer}": torch.full((sizes.n_features,), -threshold),
            f"b_dec_{layer}": torch.zeros(sizes.d_model),
        }
        save_file(
            {k: v.bfloat16() for k, v in encoder.items()}, folder / f"W_enc_{layer}.safetensors"
        )
        shape = (sizes.n_features, sizes.n_layers - layer, sizes.d_model)
        path, name = folder / f"W_dec_{layer}.safetensors", f"W_dec_{layer}"
        if zeros:
            write_zeros(path, name, shape)
        else:
            save_file({name: (torch.randn(shape) * 0.02).bfloat16()}, path)
    config = "model_kind: cross_layer_transcoder\nfeature_input_hook: mlp.hook_in\n"
    (folder / "config.yaml").write_text(config + "feature_output_hook: hook_mlp_out\n")


def write_zeros(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """A safetensors file of zeros in bfloat16, without a block on the disk but its header's."""
    size = 2 * int(np.prod(shape))
    header = {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)


def random_behavior(sizes: Sizes, n_prompts: int, length: int) -> Behavior:
    """Random tokens, each prompt with a counterfactual."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, sizes.vocab, (n_prompts, 2, length - 1)).tolist()
    prompts = [
        Prompt((0, *mine), answer=3, foil=5, counterfactual=(0, *other)) for mine, other in tokens
    ]
    return Behavior(f"random-{n_prompts}x{length}", tuple(prompts), ())
