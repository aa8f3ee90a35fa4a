"""One random CLT, written in every format, and what it does in plain torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from tiny import D_MODEL, N_FEATURES, N_LAYERS

L, D, F = N_LAYERS, D_MODEL, N_FEATURES


@dataclass(frozen=True)
class Plain:
    """A CLT as plain arrays.

    Attributes:
        w_enc: `[L, F, d]`.
        b_enc: `[L, F]`.
        w_dec: `[F, d]` of (source, target).
        b_dec: `[L, d]`.
        threshold: `[L, F]`; None for the top k.
        k: How many pass; with `positive`, only those above 0.
        skip: `[L, d, d]`, applied as `x @ skip.T`.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: dict[tuple[int, int], Tensor]
    b_dec: Tensor
    threshold: Tensor | None
    k: int = 0
    positive: bool = False
    skip: Tensor | None = None

    def encode(self, x: Tensor) -> Tensor:
        """`[L, n, d]` -> `[L, n, F]`."""
        pre = x @ self.w_enc.transpose(1, 2) + self.b_enc[:, None]
        if self.threshold is not None:
            return torch.where(pre > self.threshold[:, None], pre, 0.0)
        out = torch.zeros_like(pre)
        for layer, row in ((i, j) for i in range(L) for j in range(pre.shape[1])):
            best = sorted(range(F), key=lambda f: -float(pre[layer, row, f]))[: self.k]
            out[layer, row, best] = pre[layer, row, best]
        return out.relu() if self.positive else out

    def rebuild(self, x: Tensor) -> Tensor:
        """`[L, n, d]` -> `[L, n, d]`."""
        acts = self.encode(x)
        out = self.b_dec[:, None].expand(L, x.shape[1], D).clone()
        for (source, target), rows in self.w_dec.items():
            out[target] += acts[source] @ rows
        if self.skip is not None:
            out += x @ self.skip.transpose(1, 2)
        return out


def plain(*, crosses: bool = True, activation: str = "jump", skip: bool = False) -> Plain:
    """A random one; `activation` is `jump`, `relu`, `topk` or `topk-positive`."""
    generator = torch.Generator().manual_seed(7)

    def randn(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    jump = torch.rand(L, F, generator=generator) * 0.4
    threshold = {"jump": jump, "relu": torch.zeros(L, F)}.get(activation)
    return Plain(
        w_enc=randn(L, F, D, scale=D**-0.5),
        b_enc=randn(L, F, scale=0.2) - 0.3,
        w_dec={
            (source, target): randn(F, D, scale=0.2)
            for source in range(L)
            for target in (range(source, L) if crosses else [source])
        },
        b_dec=randn(L, D, scale=0.1),
        threshold=threshold,
        k=5,
        positive=activation == "topk-positive",
        skip=randn(L, D, D, scale=0.05) if skip else None,
    )


def rounded(one: Plain, dtype: torch.dtype) -> Plain:
    """What is left when it is stored in `dtype`."""

    def cast(x: Tensor) -> Tensor:
        return x.to(dtype).float()

    return replace(
        one,
        w_enc=cast(one.w_enc),
        b_enc=cast(one.b_enc),
        w_dec={pair: cast(rows) for pair, rows in one.w_dec.items()},
        b_dec=cast(one.b_dec),
        threshold=None if one.threshold is None else cast(one.threshold),
        skip=None if one.skip is None else cast(one.skip),
    )


def save(path: Path, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """A safetensors file, floats in `dtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            key: (x.to(dtype) if x.is_floating_point() else x).contiguous().clone()
            for key, x in tensors.items()
        },
        path,
    )


def clt_forge(
    folder: Path,
    one: Plain,
    *,
    dtype: torch.dtype = torch.float32,
    shards: int = 0,
    factors: bool = True,
) -> Plain:
    """As CLT-Forge saves it; its own units differ from the model's by two factors a layer."""
    crosses = (0, 1) in one.w_dec
    s_in = torch.tensor([0.5, 2.0, 4.0]) if factors else torch.ones(L)
    s_out = torch.tensor([0.25, 1.0, 8.0]) if factors else torch.ones(L)
    # Biases of pairs in sixteenths, so that no dtype rounds their sum.
    b_pair = torch.stack(
        [torch.randint(-4, 5, (D,), generator=torch.Generator().manual_seed(i)) for i in range(9)]
    )
    pairs = [(a, b) for a in range(L) for b in (range(a, L) if crosses else [a])]
    b_pair = b_pair[: len(pairs)] / 16
    b_dec = torch.zeros(L, D)
    for (_, target), bias in zip(pairs, b_pair, strict=True):
        b_dec[target] += bias / s_out[target]
    assert one.threshold is not None
    log = one.threshold.log().to(dtype)
    tensors = {
        "W_enc": torch.stack([one.w_enc[i].T / s_in[i] for i in range(L)]),
        "b_enc": one.b_enc,
        "W_dec": torch.stack([one.w_dec[pair] * s_out[pair[1]] for pair in pairs]),
        "b_dec": b_pair,
        "log_threshold": log,
        "layer_mask": torch.zeros(L, len(pairs)),
        "feature_count": torch.zeros(L, F, dtype=torch.int64),
        "estimated_norm_scaling_factor_in": s_in,
        "estimated_norm_scaling_factor_out": s_out,
    }
    axis = {"W_enc": 2, "b_enc": 1, "W_dec": 1, "log_threshold": 1, "feature_count": 1}
    for rank in range(shards):
        part = {k: x.chunk(shards, axis[k])[rank] if k in axis else x for k, x in tensors.items()}
        save(folder / f"rank{rank}_clt_weights.safetensors", part, dtype)
    if not shards:
        save(folder / "clt_weights.safetensors", tensors, dtype)
    config = {
        "device": "cuda",
        "dtype": "bfloat16",
        "seed": 42,
        "model_name": "gpt2",
        "debug": False,
        "d_in": D,
        "d_latent": F,
        "n_layers": L,
        "jumprelu_bandwidth": 1.0,
        "jumprelu_init_threshold": 0.03,
        "normalize_decoder": False,
        "dead_feature_window": 250,
        "cross_layer_decoders": crosses,
        "context_size": 16,
        "l0_coefficient": 2.0,
        "ddp": False,
        "fsdp": False,
        "feature_sharding": shards > 0,
    }
    (folder / "clt_cfg.json").write_text(json.dumps(config))
    return replace(rounded(one, dtype), b_dec=b_dec, threshold=log.float().exp())


def crosslayer(
    folder: Path,
    one: Plain,
    *,
    dtype: torch.dtype = torch.float32,
    nonlinearity: str = "JumpReLU",
    standardizer: str | None = None,
) -> Plain:
    """As crosslayer-transcoder saves it, with or without standardizers to be folded."""
    crosses = (0, 1) in one.w_dec
    shape = (L,) if standardizer == "Layerwise" else (L, D)
    generator = torch.Generator().manual_seed(11)
    # Powers of two and quarters, so that folding rounds nothing.
    std_in, std_out = (2.0 ** torch.randint(-2, 3, shape, generator=generator) for _ in "io")
    mean_in, mean_out = (torch.randint(-4, 5, shape, generator=generator) / 4 for _ in "io")
    stats = std_in, std_out, mean_in, mean_out
    if standardizer is None:
        stats = torch.ones(L, D), torch.ones(L, D), torch.zeros(L, D), torch.zeros(L, D)
    si, so, mi, mo = (x.view(L, -1).expand(L, D) for x in stats)
    stored = rounded(one, dtype)
    tensors = {
        "encoder.W": stored.w_enc.transpose(1, 2),
        "encoder.b": stored.b_enc,
        "decoder.b": stored.b_dec,
    }
    if crosses:
        for target in range(L):
            rows = [stored.w_dec[source, target] for source in range(target + 1)]
            tensors[f"decoder.W_{target}"] = torch.stack(rows)
    else:
        tensors["decoder.W"] = torch.stack([stored.w_dec[layer, layer] for layer in range(L)])
    threshold = stored.threshold
    if nonlinearity == "JumpReLU":
        assert threshold is not None
        theta = threshold - 0.1  # some below 0, which let nothing below 0 pass
        theta = theta.to(dtype).float()
        tensors["nonlinearity.theta"] = theta[None]
        tensors["nonlinearity.bandwidth"] = torch.tensor(1.0)
        threshold = theta.clamp(min=0)
    elif nonlinearity == "BatchTopK":
        tensors["nonlinearity.threshold"] = torch.tensor([0.25])
        threshold = torch.full((L, F), 0.25)
    elif nonlinearity == "PerLayerBatchTopK":
        tensors["nonlinearity.threshold"] = torch.tensor([0.25, -0.5, 0.125])
        threshold = torch.tensor([0.25, 0.0, 0.125])[:, None].expand(L, F)
    arguments: dict[str, Any] = {"d_acts": D, "d_features": F, "n_layers": L}
    module = "crosslayer_transcoder.model"
    parts: dict[str, Any] = {
        "encoder": {"class_path": f"{module}.clt.Encoder", "init_args": arguments},
        "decoder": {
            "class_path": f"{module}.clt.{'CrosslayerDecoder' if crosses else 'Decoder'}",
            "init_args": arguments,
        },
        "nonlinearity": {
            "class_path": f"{module}.x.{nonlinearity}",
            "init_args": {"k": one.k, "e": 0.1, "n_layers": L},
        },
        "input_standardizer": None,
        "output_standardizer": None,
    }
    if standardizer is not None:
        for side, mean, std in (("input", mean_in, std_in), ("output", mean_out, std_out)):
            parts[f"{side}_standardizer"] = {
                "class_path": f"{module}.standardize.{standardizer}{side.capitalize()}Standardizer",
                "init_args": {"n_layers": L},
            }
            tensors[f"{side}_standardizer.mean"] = mean
            tensors[f"{side}_standardizer.std"] = std
    model = {"class_path": f"{module}.clt.CrossLayerTranscoder", "init_args": parts}
    save(folder / "checkpoint.safetensors", tensors, dtype)
    (folder / "config.yaml").write_text(
        yaml.dump({"model": {**model, "is_folded": standardizer is None}})
    )
    return replace(
        stored,
        w_enc=stored.w_enc / si[:, None],
        b_enc=stored.b_enc - torch.einsum("ld,lfd->lf", mi / si, stored.w_enc),
        w_dec={pair: rows * so[pair[1]] for pair, rows in stored.w_dec.items()},
        b_dec=stored.b_dec * so + mo,
        threshold=threshold,
    )


def sae_lens(
    folder: Path, one: Plain, *, dtype: torch.dtype = torch.float32, old: bool = False
) -> Plain:
    """As SAELens saves transcoders, one folder a layer; `old` is the configuration before 6."""
    stored = rounded(one, dtype)
    assert stored.threshold is not None
    jumps = bool((stored.threshold > 0).any())
    for layer in range(L):
        tensors = {
            "W_enc": stored.w_enc[layer].T,
            "b_enc": stored.b_enc[layer],
            "W_dec": stored.w_dec[layer, layer],
            "b_dec": stored.b_dec[layer],
        }
        if jumps:
            tensors["threshold"] = stored.threshold[layer]
        if stored.skip is not None:
            tensors["W_skip"] = stored.skip[layer]
        parts = ["jumprelu"] * jumps + ["skip"] * (stored.skip is not None) + ["transcoder"]
        config: dict[str, Any] = {
            "d_in": D,
            "d_sae": F,
            "d_out": D,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": False,
            "normalize_activations": "none",
            "architecture": "_".join(parts),
        }
        hooks = {
            "hook_name": f"blocks.{layer}.ln2.hook_normalized",
            "hook_name_out": f"blocks.{layer}.hook_mlp_out",
        }
        if old:
            config |= hooks | {
                "hook_layer": layer,
                "hook_layer_out": layer,
                "activation_fn": "relu",
            }
        else:
            config |= {
                "reshape_activations": "none",
                "metadata": {"sae_lens_version": "6.5.2", "model_name": "gpt2", **hooks},
            }
        save(folder / f"layer-{layer}" / "sae_weights.safetensors", tensors, dtype)
        (folder / f"layer-{layer}" / "cfg.json").write_text(json.dumps(config))
    return stored


HOOKS = "hook_resid_mid", "hook_mlp_out"


def circuit_tracer(folder: Path, one: Plain, *, dtype: torch.dtype = torch.float32) -> Plain:
    """As circuit-tracer saves a cross-layer transcoder."""
    stored = rounded(one, dtype)
    assert stored.threshold is not None
    for layer in range(L):
        rows = [stored.w_dec[layer, target] for target in range(layer, L)]
        encoder = {
            f"W_enc_{layer}": stored.w_enc[layer],
            f"b_enc_{layer}": stored.b_enc[layer],
            f"b_dec_{layer}": stored.b_dec[layer],
            f"threshold_{layer}": stored.threshold[layer],
        }
        save(folder / f"W_enc_{layer}.safetensors", encoder, dtype)
        decoder = {f"W_dec_{layer}": torch.stack(rows, 1)}
        save(folder / f"W_dec_{layer}.safetensors", decoder, dtype)
    (folder / "config.yaml").write_text(
        "model_kind: cross_layer_transcoder\n"
        f"feature_input_hook: {HOOKS[0]}\nfeature_output_hook: {HOOKS[1]}\n"
    )
    return stored


def cross_layer_object(one: Plain, lazy: Path | None = None) -> Any:
    """What circuit-tracer's CrossLayerTranscoder has; with `lazy`, weights in that folder."""
    function: Any = torch.nn.functional.relu
    if one.threshold is not None and bool((one.threshold > 0).any()):
        function = SimpleNamespace(threshold=torch.nn.Parameter(one.threshold[:, None]))
    weights: dict[str, Any] = {"W_dec": None}  # a lazy one has no W_enc at all
    if lazy is None:
        weights = {
            "W_enc": torch.nn.Parameter(one.w_enc),
            "W_dec": [
                torch.stack([one.w_dec[source, target] for target in range(source, L)], 1)
                for source in range(L)
            ],
        }
    return SimpleNamespace(
        n_layers=L,
        d_transcoder=F,
        d_model=D,
        b_enc=torch.nn.Parameter(one.b_enc),
        b_dec=torch.nn.Parameter(one.b_dec),
        W_skip=None if one.skip is None else one.skip.transpose(1, 2),
        activation_function=function,
        lazy_encoder=lazy is not None,
        lazy_decoder=lazy is not None,
        clt_path=None if lazy is None else str(lazy),
        feature_input_hook=HOOKS[0],
        feature_output_hook=HOOKS[1],
        **weights,
    )


def set_object(one: Plain, lazy: Path | None = None) -> Any:
    """What circuit-tracer's TranscoderSet has; with `lazy`, weights in files there."""
    transcoders = []
    for layer in range(L):
        weights = {"W_enc": one.w_enc[layer], "W_dec": one.w_dec[layer, layer]}
        path = None if lazy is None else lazy / f"layer_{layer}.safetensors"
        if path is not None:
            save(path, weights, torch.float32)
            weights = {}  # to ask for them would read them
        function: Any = torch.relu
        if one.threshold is None:
            function = SimpleNamespace(k=one.k)
        elif bool((one.threshold > 0).any()):
            function = SimpleNamespace(threshold=one.threshold[layer])
        transcoders.append(
            SimpleNamespace(
                d_transcoder=F,
                d_model=D,
                layer_idx=layer,
                b_enc=one.b_enc[layer],
                b_dec=one.b_dec[layer],
                W_skip=None if one.skip is None else one.skip[layer],
                activation_function=function,
                lazy_encoder=path is not None,
                lazy_decoder=path is not None,
                transcoder_path=None if path is None else str(path),
                **weights,
            )
        )
    return SimpleNamespace(
        transcoders=transcoders,
        n_layers=L,
        d_transcoder=F,
        feature_input_hook=HOOKS[0],
        feature_output_hook=HOOKS[1],
    )


def sae_lens_objects(folder: Path) -> dict[int, Any]:
    """The transcoders that `sae_lens` wrote, as SAELens would have them in memory."""
    found = {}
    for layer in range(L):
        config = json.loads((folder / f"layer-{layer}" / "cfg.json").read_text())
        tensors = load_file(folder / f"layer-{layer}" / "sae_weights.safetensors")
        cfg = SimpleNamespace(to_dict=lambda config=config: config)
        found[layer] = SimpleNamespace(cfg=cfg, **tensors)
    return found
