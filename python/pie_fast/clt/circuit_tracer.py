"""The circuit-tracer CLT layout.

    W_enc_{l}.safetensors   W_enc_{l} [F, d]  b_enc_{l} [F]  b_dec_{l} [d]  [threshold_{l} [F]]
    W_dec_{l}.safetensors   W_dec_{l} [F, L - l, d]; axis 1, slot j writes layer l + j
    config.yaml             model_kind, feature_input_hook, feature_output_hook

A threshold tensor makes it a JumpReLU; nothing else does. `b_dec_{l}` belongs to target layer l
although it lives in the encoder's file. Only headers and encoders are read here; decoder rows are
gathered from the file when they are asked for.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pie_fast.clt.contract import Clt, Encoder
from pie_fast.errors import CheckpointError

_DEFAULT_HOOKS = ("hook_resid_mid", "hook_mlp_out")


def read_circuit_tracer(
    folder: Path, *, name: str, device: torch.device, dtype: torch.dtype
) -> Clt:
    """Read a folder in the circuit-tracer layout.

    Raises:
        CheckpointError: A file is missing, broken, or of a shape that does not fit the others.
    """
    read_hook, write_hook = _hooks(folder)
    n_layers = _count_layers(folder)
    tensors = [_read_encoder(folder, layer, device, dtype) for layer in range(n_layers)]
    shape = tensors[0][0].weight.shape
    for layer, (encoder, b_dec) in enumerate(tensors):
        path = folder / f"W_enc_{layer}.safetensors"
        _expect(path, f"W_enc_{layer}", encoder.weight, tuple(shape))
        _expect(path, f"b_enc_{layer}", encoder.bias, (shape[0],))
        _expect(path, f"b_dec_{layer}", b_dec, (shape[1],))
        if encoder.threshold is not None:
            _expect(path, f"threshold_{layer}", encoder.threshold, (shape[0],))
        _check_decoder(folder, layer, (shape[0], n_layers - layer, shape[1]))

    def read_rows(layer: int, ids: Tensor) -> Tensor:
        # The native reader needs no torch; it is imported here to keep the arrow pointing down.
        from pie_fast.decoder import decoder_rows

        path = folder / f"W_dec_{layer}.safetensors"
        rows = decoder_rows(path, f"W_dec_{layer}", ids.cpu().numpy())
        return torch.from_numpy(rows).to(device=device, dtype=dtype)

    return Clt(
        name=name,
        encoders=tuple(encoder for encoder, _ in tensors),
        b_dec=torch.stack([b_dec for _, b_dec in tensors]),
        read_rows=read_rows,
        read_hook=read_hook,
        write_hook=write_hook,
        identity=_identity(folder, n_layers),
    )


def _hooks(folder: Path) -> tuple[str, str]:
    path = folder / "config.yaml"
    if not path.exists():
        return _DEFAULT_HOOKS
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: must hold a mapping, holds {type(config).__name__}")
    kind = config.get("model_kind")
    if kind != "cross_layer_transcoder":
        raise CheckpointError(
            f"{path}: model_kind is {kind!r}, this reader knows 'cross_layer_transcoder'"
        )
    hooks = []
    for key in ("feature_input_hook", "feature_output_hook"):
        value = config.get(key)
        if not isinstance(value, str):
            raise CheckpointError(f"{path}: {key} is {value!r}, must name a hook point")
        hooks.append(value)
    return hooks[0], hooks[1]


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


def _read_encoder(
    folder: Path, layer: int, device: torch.device, dtype: torch.dtype
) -> tuple[Encoder, Tensor]:
    path = folder / f"W_enc_{layer}.safetensors"
    names = {"weight": f"W_enc_{layer}", "bias": f"b_enc_{layer}", "b_dec": f"b_dec_{layer}"}
    found: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            keys = set(file.keys())
            if f"threshold_{layer}" in keys:
                names["threshold"] = f"threshold_{layer}"
            for role, key in names.items():
                if key not in keys:
                    raise CheckpointError(f"{path}: {key} is missing, holds {sorted(keys)}")
                found[role] = file.get_tensor(key).to(device=device, dtype=dtype)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error
    for role, tensor in found.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: {names[role]} holds NaN or infinite values")
    encoder = Encoder(found["weight"], found["bias"], found.get("threshold"))
    return encoder, found["b_dec"]


def _expect(path: Path, key: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise CheckpointError(
            f"{path}: {key} has shape {list(tensor.shape)}, must be {list(shape)}"
        )


def _check_decoder(folder: Path, layer: int, shape: tuple[int, ...]) -> None:
    """Only the header is read: the shape must fit before the first row is gathered."""
    path, key = folder / f"W_dec_{layer}.safetensors", f"W_dec_{layer}"
    try:
        with safe_open(path, framework="pt") as file:
            if key not in file.keys():  # noqa: SIM118 - safe_open is no mapping
                raise CheckpointError(f"{path}: {key} is missing, holds {sorted(file.keys())}")
            found = tuple(file.get_slice(key).get_shape())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error
    if found != shape:
        raise CheckpointError(f"{path}: {key} has shape {list(found)}, must be {list(shape)}")


def _identity(folder: Path, n_layers: int) -> str:
    """A short hash of names, sizes and first bytes: tells CLTs apart without reading GBs."""
    digest = hashlib.sha256()
    for layer in range(n_layers):
        for kind in ("W_enc", "W_dec"):
            path = folder / f"{kind}_{layer}.safetensors"
            with path.open("rb") as file:
                digest.update(f"{path.name} {path.stat().st_size}".encode())
                digest.update(file.read(65536))
    return digest.hexdigest()[:16]
