"""A planted system as files: weights of a GPT-2 folder and of a CLT folder. No torch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pie_fast.planted.layout import ANSWER, BOS, N_CTX, N_LAYERS, Feature, Floats, Readout, Room
from pie_fast.storage import write_json, write_safetensors, write_text


def weights(
    features: dict[int, Feature], width: int, room: Room
) -> tuple[list[Floats], list[Floats]]:
    """Encoder and decoder of each layer, into that layer: `[width, d_model]`."""
    encoders = [np.zeros((width, room.d_model), np.float32) for _ in range(N_LAYERS)]
    decoders = [np.zeros((width, room.d_model), np.float32) for _ in range(N_LAYERS)]
    for number, feature in features.items():
        layer, place = divmod(number, width)
        encoders[layer][place] = feature.scale * room.read(f"cue {feature.cue}")
        for name, weight in feature.writes.items():
            decoders[layer][place] += weight * room.write(name)
    return encoders, decoders


def write_model(
    folder: Path,
    embedding: Floats,
    encoders: list[Floats],
    decoders: list[Floats],
    readouts: list[Readout],
    room: Room,
) -> None:
    """A GPT-2 folder with these weights and no others; MLPs are the CLT with a ReLU."""
    d = room.d_model
    found = {"wte.weight": embedding, "wpe.weight": np.zeros((N_CTX, d), np.float32)}
    found |= _norm("ln_f", room)
    for layer, (encoder, decoder) in enumerate(zip(encoders, decoders, strict=True)):
        block = _norm("ln_1", room) | _norm("ln_2", room)
        block |= _heads(readouts if layer == N_LAYERS - 1 else [], room)
        block["mlp.c_fc.weight"] = encoder.T.copy()
        block["mlp.c_fc.bias"] = np.zeros(len(encoder), np.float32)
        block["mlp.c_proj.weight"] = decoder
        block["mlp.c_proj.bias"] = np.zeros(d, np.float32)
        found |= {f"h.{layer}.{name}": value for name, value in block.items()}
    found = {f"transformer.{name}": value for name, value in found.items()}
    found["lm_head.weight"] = np.zeros_like(embedding)
    found["lm_head.weight"][ANSWER] = room.read("answer")
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(len(embedding), len(encoders[0]), room)
    write_json(folder / "config.json", config)
    write_safetensors(folder / "model.safetensors", found, metadata={"format": "pt"})


def _config(vocab_size: int, width: int, room: Room) -> dict[str, object]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "n_positions": N_CTX,
        "n_embd": room.d_model,
        "n_layer": N_LAYERS,
        "n_head": room.n_heads,
        "n_inner": width,
        "activation_function": "relu",
        "bos_token_id": BOS,
        "eos_token_id": BOS,
        "tie_word_embeddings": False,
    }


def _norm(name: str, room: Room) -> dict[str, Floats]:
    """A LayerNorm that passes on what has mean 0."""
    gain = np.full(room.d_model, room.gain, np.float32)
    return {f"{name}.weight": gain, f"{name}.bias": np.zeros_like(gain)}


def _heads(readouts: list[Readout], room: Room) -> dict[str, Floats]:
    """One head a readout, in the layout of GPT-2: its first dimension only, its query a constant.

    The softmax over the BOS, whose score is 0, and the token is a sigmoid of the token's score.
    """
    d = room.d_model
    inward, bias = np.zeros((d, 3 * d), np.float32), np.zeros(3 * d, np.float32)
    outward = np.zeros((d, d), np.float32)
    for head, one in enumerate(readouts):
        at = head * room.d_head
        bias[at] = 1.0
        above = room.read(one.source) - one.threshold * room.read("present")
        inward[:, d + at] = one.slope * math.sqrt(room.d_head) * above
        inward[:, 2 * d + at] = one.weight * room.read("present")
        outward[at] = room.write("answer")
    return {
        "attn.c_attn.weight": inward,
        "attn.c_attn.bias": bias,
        "attn.c_proj.weight": outward,
        "attn.c_proj.bias": np.zeros(d, np.float32),
    }


def write_clt(folder: Path, encoders: list[Floats], decoders: list[Floats]) -> None:
    """The CLT folder: layer 0 has a slot for layer 1 in its decoder, and writes nothing there."""
    folder.mkdir(parents=True, exist_ok=True)
    for layer, (encoder, decoder) in enumerate(zip(encoders, decoders, strict=True)):
        width, d_model = encoder.shape
        tensors = {
            f"W_enc_{layer}": encoder,
            f"b_enc_{layer}": np.zeros(width, np.float32),
            f"b_dec_{layer}": np.zeros(d_model, np.float32),
        }
        rows = np.zeros((width, N_LAYERS - layer, d_model), np.float32)
        rows[:, 0] = decoder
        write_safetensors(folder / f"W_enc_{layer}.safetensors", tensors)
        write_safetensors(folder / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": rows})
    write_text(
        folder / "config.yaml",
        "model_name: planted\nmodel_kind: cross_layer_transcoder\n"
        "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n",
    )
