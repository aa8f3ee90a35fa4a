"""Tiny random checkpoints of every model family, as HuggingFace writes them, and CLTs that fit.

Norm weights are random too, and attention windows shorter than the prompts: a hook on the wrong
side of a norm, or a block that gets the wrong mask, changes the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM as HfModel
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    SiglipVisionConfig,
)
from transformers import Gemma3ForConditionalGeneration as HfMultimodal

N_LAYERS, D_MODEL, N_FEATURES, VOCAB, N_CTX = 4, 32, 40, 100, 40

#: of every model but GPT-2: fewer heads of keys than of queries, of another width than d / heads
_GROUPED = {
    "vocab_size": VOCAB,
    "hidden_size": D_MODEL,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": N_CTX,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}

_WINDOWED = {
    "query_pre_attn_scalar": 10,
    "sliding_window": 4,
    "layer_types": [f"{kind}_attention" for kind in ("sliding", "sliding", "full", "sliding")],
}

CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB,
        n_positions=N_CTX,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    ),
    "llama": lambda: LlamaConfig(**_GROUPED, rms_norm_eps=1e-5),
    "gemma2": lambda: Gemma2Config(
        **_GROUPED, **_WINDOWED, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "gemma3": lambda: Gemma3TextConfig(**_GROUPED, **_WINDOWED),
    "qwen3": lambda: Qwen3Config(**_GROUPED),
}

FAMILIES = tuple(CONFIGS)

#: hook names of published and trained CLTs: what they read and what they write (FORMATS.md 1.3)
HOOKS = {
    "gpt2": ("mlp.hook_in", "hook_mlp_out"),
    "llama": ("mlp.hook_in", "mlp.hook_out"),
    "gemma2": ("hook_resid_mid", "hook_mlp_out"),
    "gemma3": ("ln2.hook_normalized", "hook_mlp_out"),
    "qwen3": ("mlp.hook_in", "mlp.hook_out"),
}


def new_model(family: str, seed: int = 0) -> Any:
    """A random model of 4 layers whose norms are not the identity, in float32."""
    torch.manual_seed(seed)
    model = HfModel.from_config(CONFIGS[family](), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:
                parameter += torch.randn_like(parameter) * 0.4
    return model


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Words `w2` to `w99`, after a BOS."""
    vocab = {"<bos>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCAB)}}
    rust = Tokenizer(WordLevel(vocab, unk_token="<eos>"))
    rust.pre_tokenizer = WhitespaceSplit()
    rust.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>"
    )


def write_model(folder: Path, family: str) -> Path:
    """The checkpoint of `new_model`, with a tokenizer."""
    new_model(family).save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    return folder


def write_multimodal_gemma3(folder: Path) -> Path:
    """A Gemma 3 as the larger ones are published: with a (tiny) vision tower."""
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    config = Gemma3Config(
        text_config=CONFIGS["gemma3"]().to_dict(),
        vision_config=vision.to_dict(),
        mm_tokens_per_image=4,
        image_token_index=99,
        boi_token_index=98,
        eoi_token_index=97,
    )
    HfMultimodal(config).save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    return folder


def write_clt(
    folder: Path,
    read: str,
    write: str,
    *,
    n_layers: int = N_LAYERS,
    d_model: int = D_MODEL,
    n_features: int = N_FEATURES,
) -> Path:
    """A random JumpReLU CLT in the circuit-tracer layout, between the hooks named."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(7)

    def randn(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    for layer in range(n_layers):
        encoder = {
            f"W_enc_{layer}": randn(n_features, d_model, scale=d_model**-0.5),
            f"b_enc_{layer}": randn(n_features, scale=0.2) - 0.3,
            f"b_dec_{layer}": randn(d_model, scale=0.1),
            f"threshold_{layer}": torch.rand(n_features, generator=generator) * 0.4,
        }
        decoder = {f"W_dec_{layer}": randn(n_features, n_layers - layer, d_model, scale=0.15)}
        save_file(encoder, folder / f"W_enc_{layer}.safetensors")
        save_file(decoder, folder / f"W_dec_{layer}.safetensors")
    (folder / "config.yaml").write_text(
        "model_name: tiny\nmodel_kind: cross_layer_transcoder\n"
        f"feature_input_hook: {read}\nfeature_output_hook: {write}\n"
    )
    return folder
