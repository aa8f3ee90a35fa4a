"""The circuit-tracer CLT layout.

    W_enc_{l}.safetensors   W_enc_{l} [F, d]  b_enc_{l} [F]  b_dec_{l} [d]  [threshold_{l} [F]]
    W_dec_{l}.safetensors   W_dec_{l} [F, L - l, d]; axis 1, slot j writes layer l + j
    config.yaml             model_kind, feature_input_hook, feature_output_hook

A threshold tensor makes it a JumpReLU; nothing else does. `b_dec_{l}` belongs to target layer l
although it lives in the encoder's file. `W_skip_{l}` [d, d], which circuit-tracer has in memory
only, is written and read here too, applied as `x @ W_skip.T`.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch

from pie_fast.clt.activation import JumpReLU, ReLU
from pie_fast.clt.assembling import Layer, assemble
from pie_fast.clt.config import check_kind, hooks_of, read_yaml
from pie_fast.clt.contract import Clt
from pie_fast.clt.decoder import Slab
from pie_fast.clt.encoder import Weight
from pie_fast.clt.files import Checkpoint, check_thresholds_known, identity_of
from pie_fast.errors import CheckpointError

#: `model_kind` of config.yaml
KIND = "cross_layer_transcoder"

#: the hooks of a folder without config.yaml
DEFAULT_HOOKS = ("hook_resid_mid", "hook_mlp_out")


def read_circuit_tracer(
    folder: Path, *, name: str, device: torch.device, dtype: torch.dtype
) -> Clt:
    """Read a folder in the circuit-tracer layout.

    Raises:
        CheckpointError: A file is missing, broken, or of a shape that does not fit the others.
    """
    hooks = _hooks(folder)
    n_layers = _count_layers(folder)
    encoders = [Checkpoint(folder / f"W_enc_{layer}.safetensors") for layer in range(n_layers)]
    _check_thresholds(encoders)
    # The bias tells the number of features, so that a transposed weight is seen.
    (n_features,) = encoders[0].shape("b_enc_0", 1)
    (d_model,) = encoders[0].shape("b_dec_0", 1)
    layers = [
        _layer(folder, file, n, n_layers, n_features, d_model) for n, file in enumerate(encoders)
    ]
    files = [
        folder / f"{kind}_{layer}.safetensors"
        for layer in range(n_layers)
        for kind in ("W_enc", "W_dec")
    ]
    files += [path for path in [folder / "config.yaml"] if path.exists()]
    return assemble(
        layers, name=name, hooks=hooks, identity=identity_of(files), device=device, dtype=dtype
    )


def _layer(
    folder: Path, file: Checkpoint, layer: int, n_layers: int, n_features: int, d_model: int
) -> Layer:
    writes = Checkpoint(folder / f"W_dec_{layer}.safetensors")
    n_targets = n_layers - layer
    rows = writes.rows(f"W_dec_{layer}", (n_features, n_targets, d_model))
    threshold, skip = f"threshold_{layer}", f"W_skip_{layer}"
    return Layer(
        weight=Weight(file.rows(f"W_enc_{layer}", (n_features, d_model)), n_features, d_model),
        bias=file.read(f"b_enc_{layer}", (n_features,)),
        activation=JumpReLU(file.read(threshold, (n_features,))) if threshold in file else ReLU(),
        slabs=(Slab(rows, range(n_features), range(n_targets), step=n_targets),),
        targets=range(layer, n_layers),
        b_dec=file.read(f"b_dec_{layer}", (d_model,)),
        skip=file.read(skip, (d_model, d_model)) if skip in file else None,
        source=str(file.path),
    )


def _hooks(folder: Path) -> tuple[str, str]:
    path = folder / "config.yaml"
    if not path.exists():
        warnings.warn(
            f"{path} is missing: taking the hooks to be {' and '.join(DEFAULT_HOOKS)}",
            stacklevel=2,
        )
        return DEFAULT_HOOKS
    config = read_yaml(path)
    check_kind(path, config, KIND)
    return hooks_of(path, config)


def _count_layers(folder: Path) -> int:
    """As many as the highest layer that any file names; every layer needs both files."""
    found = {p.name for p in folder.glob("W_*_*.safetensors")}
    named = [int(m[1]) for m in (re.fullmatch(r"W_(?:enc|dec)_(\d+)\.\w+", n) for n in found) if m]
    n_layers = max(named) + 1
    for layer in range(n_layers):
        for name in (f"W_enc_{layer}.safetensors", f"W_dec_{layer}.safetensors"):
            if name not in found:
                raise CheckpointError(
                    f"{folder}: {name} is missing, though there are files of layer {n_layers - 1}"
                )
    return n_layers


def _check_thresholds(encoders: list[Checkpoint]) -> None:
    for file in encoders:
        check_thresholds_known(file, {f"threshold_{layer}" for layer in range(len(encoders))})
    having = [layer for layer, file in enumerate(encoders) if f"threshold_{layer}" in file]
    if having and len(having) < len(encoders):
        lacking = next(layer for layer in range(len(encoders)) if layer not in having)
        raise CheckpointError(
            f"{encoders[lacking].path}: threshold_{lacking} is missing, though "
            f"{encoders[having[0]].path.name} has threshold_{having[0]}: all layers or none"
        )
