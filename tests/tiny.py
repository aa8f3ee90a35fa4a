"""Tiny random checkpoints in the real formats: a GPT-2 folder and a CLT folder that fits it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

N_LAYERS, D_MODEL, N_FEATURES, VOCAB, N_CTX = 3, 32, 48, 60, 40


def write_gpt2(folder: Path, seed: int = 0) -> Path:
    """A random GPT-2 of 3 layers whose logits are far from flat."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=N_CTX,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def random_llama() -> LlamaForCausalLM:
    """Another architecture: RMSNorm, rotary positions, gated MLPs."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=D_MODEL,
        intermediate_size=48,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=N_CTX,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config)


def clt_tensors(layer: int, *, jump: bool = True) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Encoder tensors and `[F, L - l, d]` decoder of one layer."""
    generator = torch.Generator().manual_seed(100 + layer)

    def randn(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    encoder = {
        f"W_enc_{layer}": randn(N_FEATURES, D_MODEL, scale=D_MODEL**-0.5),
        f"b_enc_{layer}": randn(N_FEATURES, scale=0.2) - 0.3,
        f"b_dec_{layer}": randn(D_MODEL, scale=0.1),
    }
    if jump:
        encoder[f"threshold_{layer}"] = torch.rand(N_FEATURES, generator=generator) * 0.4
    return encoder, randn(N_FEATURES, N_LAYERS - layer, D_MODEL, scale=0.2)


def write_clt(folder: Path, *, jump: bool = True) -> Path:
    """A random CLT in the circuit-tracer layout for `write_gpt2`'s model."""
    folder.mkdir(parents=True, exist_ok=True)
    for layer in range(N_LAYERS):
        encoder, decoder = clt_tensors(layer, jump=jump)
        save_file(encoder, folder / f"W_enc_{layer}.safetensors")
        save_file({f"W_dec_{layer}": decoder}, folder / f"W_dec_{layer}.safetensors")
    (folder / "config.yaml").write_text(
        "model_name: tiny\nmodel_kind: cross_layer_transcoder\n"
        "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    return folder
