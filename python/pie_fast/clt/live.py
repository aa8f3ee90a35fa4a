"""Transcoders that are objects in memory, of circuit-tracer and of SAELens.

They are known by their attributes, so that neither library is needed here. Tensors are used where
they are; what an object itself reads from its files when it needs it is read from there.

    circuit-tracer CrossLayerTranscoder    W_enc [L, F, d]  W_dec: [F, L - l, d] a layer, or lazy
                                           b_enc [L, F]  b_dec [L, d]  W_skip [L, d, d]: x @ it
    circuit-tracer TranscoderSet           of W_enc [F, d]  W_dec [F, d], or lazy  b_enc  b_dec
                                           W_skip [d, d]: x @ W_skip.T
    SAELens transcoders                    one, a list, or a mapping by layer; see `sae_lens`
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pie_fast.clt.activation import Activation, JumpReLU, ReLU, TopK
from pie_fast.clt.assembling import Layer, assemble
from pie_fast.clt.contract import Clt
from pie_fast.clt.decoder import Slab
from pie_fast.clt.encoder import Weight
from pie_fast.clt.files import Checkpoint, Held
from pie_fast.clt.loading import HOLD_BYTES
from pie_fast.clt.sae_lens import Transcoder, together, transcoder
from pie_fast.errors import CheckpointError

_KINDS = (
    "a folder, a hub id, a pie_fast Clt, a circuit-tracer CrossLayerTranscoder or TranscoderSet, "
    "or a SAELens transcoder, a list of them, or a dict of them by layer"
)

_SET = "transcoders", "feature_input_hook", "feature_output_hook"
_CROSS = "n_layers", "d_transcoder", "d_model", "b_enc", "b_dec", "feature_input_hook"
_SAE = "cfg", "W_enc", "W_dec", "b_enc", "b_dec"


def clt_of(
    found: Any, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Clt:
    """A transcoder object of another library as a `Clt`.

    Args:
        found: See the module.
        device: Where it computes; tensors that are elsewhere are copied.
        dtype: What it computes in; tensors of another dtype are copied.

    Raises:
        CheckpointError: An object of another kind, or one that cannot be read exactly.
    """
    device = torch.device(device)
    clt = _clt(found, device, dtype)
    parts = found.transcoders if _has(found, _SET) else [found]
    lazy = any(getattr(part, "lazy_encoder", False) for part in parts)
    clt.hold(encoders=not lazy, decoders=clt.decoder_bytes <= HOLD_BYTES)
    return clt


def _clt(found: Any, device: torch.device, dtype: torch.dtype) -> Clt:
    if _has(found, _SET):
        layers = [_of_set(one, number) for number, one in enumerate(found.transcoders)]
    elif _has(found, _CROSS):
        layers = [_of_cross(found, number) for number in range(found.n_layers)]
    else:
        ours = [_of_sae_lens(one, layer) for layer, one in _each(found)]
        identity = _identity(one.layer for one in sorted(ours, key=lambda one: one.number))
        name = "SAELens transcoders"
        return together(ours, name=name, identity=identity, device=device, dtype=dtype)
    return assemble(
        layers,
        name=type(found).__name__,
        hooks=(found.feature_input_hook, found.feature_output_hook),
        identity=_identity(layers),
        device=device,
        dtype=dtype,
    )


def _of_cross(found: Any, number: int) -> Layer:
    """A layer of a circuit-tracer CrossLayerTranscoder."""
    name = f"{type(found).__name__}: layer {number}"
    n_features, d_model, n_targets = found.d_transcoder, found.d_model, found.n_layers - number
    held = Held(name, {"b_enc": found.b_enc[number], "b_dec": found.b_dec[number]})
    lazy = {side: getattr(found, f"W_{side}", None) is None for side in ("enc", "dec")}
    if any(lazy.values()) and getattr(found, "clt_path", None) is None:
        raise CheckpointError(
            f"{name}: weights are read when they are needed, but clt_path is None; must be a folder"
        )

    def weights(side: str, shape: tuple[int, ...]) -> Any:
        key = f"W_{side}_{number}"
        if lazy[side]:
            return Checkpoint(Path(found.clt_path) / f"{key}.safetensors").rows(key, shape)
        return Held(name, {key: getattr(found, f"W_{side}")[number]}).rows(key, shape)

    rows = weights("dec", (n_features, n_targets, d_model))
    skip = getattr(found, "W_skip", None)
    return Layer(
        weight=Weight(weights("enc", (n_features, d_model)), n_features, d_model),
        bias=held.read("b_enc", (n_features,)),
        activation=_activation(name, found.activation_function, n_features, number),
        slabs=(Slab(rows, range(n_features), range(n_targets), step=n_targets),),
        targets=range(number, found.n_layers),
        b_dec=held.read("b_dec", (d_model,)),
        skip=None if skip is None else _small(name, "W_skip", skip[number], d_model, d_model).T,
        source=name,
    )


def _of_set(found: Any, number: int) -> Layer:
    """A circuit-tracer SingleLayerTranscoder."""
    name = f"{type(found).__name__}: layer {number}"
    missing = [key for key in ("d_transcoder", "d_model", "b_enc") if not hasattr(found, key)]
    if missing:
        raise CheckpointError(f"{name}: has no {missing[0]}; {_expected()}")
    n_features, d_model = found.d_transcoder, found.d_model
    shape = n_features, d_model

    def weights(key: str, side: str) -> Any:
        # Asking a lazy one for its weight would read all of it.
        if getattr(found, f"lazy_{side}", False):
            return Checkpoint(Path(found.transcoder_path)).rows(key, shape)
        return Held(name, {key: getattr(found, key)}).rows(key, shape)

    skip = getattr(found, "W_skip", None)
    return Layer(
        weight=Weight(weights("W_enc", "encoder"), n_features, d_model),
        bias=_small(name, "b_enc", found.b_enc, n_features),
        activation=_activation(name, found.activation_function, n_features),
        slabs=(Slab(weights("W_dec", "decoder"), range(n_features), range(1)),),
        targets=range(number, number + 1),
        b_dec=_small(name, "b_dec", found.b_dec, d_model),
        skip=None if skip is None else _small(name, "W_skip", skip, d_model, d_model),
        source=name,
    )


def _of_sae_lens(found: Any, layer: int | None) -> Transcoder:
    name = type(found).__name__
    tensors = {
        key: value
        for key in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip")
        if isinstance(value := getattr(found, key, None), Tensor)
    }
    one = transcoder(Path(f"{name}.cfg"), found.cfg.to_dict(), Held(name, tensors))
    if layer is not None and layer != one.number:
        raise CheckpointError(f"{name}: given as layer {layer}, but its hooks are of {one.number}")
    return one


def _each(found: Any) -> list[tuple[int | None, Any]]:
    """SAELens transcoders with the layers that they are given for."""
    pairs: list[tuple[Any, Any]]
    if isinstance(found, Mapping):
        pairs = list(found.items())
    elif isinstance(found, Sequence) and not isinstance(found, str):
        pairs = [(None, one) for one in found]
    else:
        pairs = [(None, found)]
    for _, one in pairs:
        if not (_has(one, _SAE) and hasattr(one.cfg, "to_dict")):
            raise CheckpointError(f"clt is or holds a {type(one).__name__}; {_expected()}")
    if not pairs:
        raise CheckpointError(f"clt is an empty {type(found).__name__}; {_expected()}")
    return pairs


def _activation(name: str, function: Any, n_features: int, layer: int | None = None) -> Activation:
    """What a circuit-tracer activation function is; a CLT's holds the thresholds of all layers."""
    threshold = getattr(function, "threshold", None)
    if isinstance(threshold, Tensor):
        mine = threshold if layer is None else threshold[layer]
        return JumpReLU(_small(name, "threshold", mine.reshape(-1), n_features))
    if isinstance(k := getattr(function, "k", None), int) and k > 0:
        return TopK(k)
    plain = torch.nn.functional.relu, torch.relu
    if function in plain or isinstance(function, torch.nn.ReLU):
        return ReLU()
    raise CheckpointError(
        f"{name}: activation_function is {function!r}, must be a ReLU, JumpReLU or TopK"
    )


def _small(name: str, key: str, tensor: Tensor, *shape: int) -> Tensor:
    return Held(name, {key: tensor}).read(key, shape)


def _has(found: Any, names: Sequence[str]) -> bool:
    return all(hasattr(found, name) for name in names)


def _expected() -> str:
    return f"must be {_KINDS}"


def _identity(layers: Iterable[Layer]) -> str:
    """A short hash of what is small and of one write vector a layer: tells CLTs apart."""
    digest = hashlib.sha256()
    for layer in layers:
        activation = layer.activation
        first = torch.zeros(1, dtype=torch.int64)
        read = layer.weight.rows.read(first + layer.weight.first)
        parts = [layer.bias, layer.b_dec, read, layer.slabs[0].read(first)]
        if isinstance(activation, JumpReLU):
            parts.append(activation.threshold)
        else:
            digest.update(repr(activation).encode())
        if layer.skip is not None:
            parts.append(layer.skip[0])
        for part in parts:
            digest.update(f"{tuple(part.shape)}".encode())
            digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
