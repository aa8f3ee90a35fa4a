"""Any transcoder as a circuit-tracer folder, a few rows in memory at a time.

A cross-layer transcoder becomes a CLT folder; one that only writes to its own layer a folder of
per-layer transcoders (`model_kind: transcoder_set`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.clt import circuit_tracer, per_layer
from pie_fast.clt.activation import Activation, JumpReLU, TopK
from pie_fast.clt.contract import Clt
from pie_fast.errors import CheckpointError, OutputExistsError, PieFastError
from pie_fast.storage import Pieces, replacing, swap_in, to_bf16, write_json, write_pieces
from pie_fast.untrusted import load_json

#: what tells which transcoder a stopped conversion was of
_MARK = "converting.json"

#: its files
_WRITTEN = re.compile(r"(W_enc|W_dec|layer)_\d+\.safetensors")

#: features of a layer that are in memory at once
_AT_ONCE = 512

DTYPES = ("F32", "BF16", "F16")


def write_circuit_tracer(
    clt: Clt,
    folder: Path,
    *,
    dtype: str = "F32",
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a transcoder in the circuit-tracer layout.

    The folder appears when it is complete. Until then its files are in `FOLDER.partial`, and a
    conversion that was stopped goes on there with the next file.

    Args:
        clt: The transcoder, in float32.
        folder: Where.
        dtype: `F32`, `BF16` or `F16`; biases and thresholds are always F32.
        force: Replace a folder that is there.
        progress: Told how many of how many layers are done.

    Returns:
        `folder`.

    Raises:
        CheckpointError: The layout has no place for what this transcoder is.
        OutputExistsError: `folder` exists.
        PieFastError: Unknown dtype; a weight that F16 cannot hold.
    """
    folder = folder.absolute()  # `.` has no name to put `.partial` behind
    if dtype not in DTYPES:
        raise PieFastError(f"dtype is {dtype!r}, must be one of {', '.join(DTYPES)}")
    if folder.exists() and not force:
        raise OutputExistsError(f"{folder} exists; use --force to replace it")
    _check_replaceable(folder)
    crossing = any(len(clt.targets(layer)) > 1 for layer in clt.covered)
    _check_expressible(clt, crossing)
    partial = _begin(folder, {"identity": clt.identity, "name": clt.name, "dtype": dtype})
    for layer in range(clt.n_layers):
        write = _write_clt_layer if crossing else _write_own_layer
        write(clt, layer, partial, dtype)
        if progress is not None:
            progress(layer + 1, clt.n_layers)
    with replacing(partial / "config.yaml") as file:
        file.write(yaml.safe_dump(_config(clt, crossing), sort_keys=False).encode())
    if folder.exists():
        swap_in(partial, folder)
    else:
        partial.rename(folder)
    (folder / _MARK).unlink()
    return folder


def _check_replaceable(folder: Path) -> None:
    """Only a folder that has a transcoder's files and nothing else is replaced."""
    if not folder.exists():
        return
    ours = {"config.yaml", _MARK}
    named = (path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    other = [name for name in named if name not in ours and not _WRITTEN.fullmatch(name)]
    if folder.is_symlink() or other or not (folder / "config.yaml").is_file():
        raise OutputExistsError(
            f"{folder} is not a folder of a transcoder alone (config.yaml, W_enc_*, W_dec_*, "
            f"layer_*; found {other[:3]}): it is not replaced"
        )


def _begin(folder: Path, what: dict[str, str]) -> Path:
    """The folder to work in: one that was stopped at the same work is gone on with."""
    partial = folder.with_name(f"{folder.name}.partial")
    mark = partial / _MARK
    if partial.exists() and not _same_work(mark, what):
        raise OutputExistsError(
            f"{partial} holds another conversion that was stopped; remove it to begin anew"
        )
    partial.mkdir(parents=True, exist_ok=True)
    write_json(mark, what)
    return partial


def _same_work(mark: Path, what: dict[str, str]) -> bool:
    try:
        return bool(load_json(mark.read_bytes()) == what)
    except (OSError, ValueError):
        return False


def _check_expressible(clt: Clt, crossing: bool) -> None:
    if clt.covered != tuple(range(clt.n_layers)):
        raise CheckpointError(
            f"{clt.name}: has layers {list(clt.covered)} of {clt.n_layers}; the circuit-tracer "
            "layout needs all of them"
        )
    kinds = {type(clt.encoder(layer).activation) for layer in clt.covered}
    if len(kinds) > 1:
        names = sorted(kind.__name__ for kind in kinds)
        raise CheckpointError(f"{clt.name}: layers differ in activation: {', '.join(names)}")
    first = clt.encoder(0).activation
    if isinstance(first, TopK):
        same = all(clt.encoder(layer).activation == first for layer in clt.covered)
        if crossing or first.positive or not same:
            raise CheckpointError(
                f"{clt.name}: the circuit-tracer layout has TopK for per-layer transcoders of one "
                "k that keep negative ones too, and this is another"
            )


def _write_clt_layer(clt: Clt, layer: int, folder: Path, dtype: str) -> None:
    encoder = clt.encoder(layer)
    small = {f"b_enc_{layer}": encoder.bias, f"b_dec_{layer}": clt.b_dec[layer]}
    small |= _named(f"threshold_{layer}", _threshold(encoder.activation))
    small |= _named(f"W_skip_{layer}", clt.skips.get(layer))
    large = {f"W_enc_{layer}": _encoder_pieces(clt, layer, dtype)}
    _write_once(folder / f"W_enc_{layer}.safetensors", large, small)
    rows = {f"W_dec_{layer}": _decoder_pieces(clt, layer, dtype, squeeze=False)}
    _write_once(folder / f"W_dec_{layer}.safetensors", rows, {})


def _write_own_layer(clt: Clt, layer: int, folder: Path, dtype: str) -> None:
    encoder = clt.encoder(layer)
    small = {"b_enc": encoder.bias, "b_dec": clt.b_dec[layer]}
    small |= _named("activation_function.threshold", _threshold(encoder.activation))
    small |= _named("W_skip", clt.skips.get(layer))
    large = {
        "W_enc": _encoder_pieces(clt, layer, dtype),
        "W_dec": _decoder_pieces(clt, layer, dtype, squeeze=True),
    }
    _write_once(folder / f"layer_{layer}.safetensors", large, small)


def _config(clt: Clt, crossing: bool) -> dict[str, object]:
    activation = clt.encoder(0).activation
    return {
        "model_kind": circuit_tracer.KIND if crossing else per_layer.KIND,
        "feature_input_hook": clt.read_hook,
        "feature_output_hook": clt.write_hook,
        **({"activation": "topk", "k": activation.k} if isinstance(activation, TopK) else {}),
    }


def _write_once(path: Path, large: dict[str, Pieces], small: dict[str, Tensor]) -> None:
    """A file that is there is whole: it was renamed into its place."""
    if path.exists():
        return
    pieces = {
        name: Pieces("F32", tuple(one.shape), [one.detach().cpu().float().numpy()])
        for name, one in small.items()
    }
    write_pieces(path, pieces | large)  # F32 first, so that each is aligned


def _encoder_pieces(clt: Clt, layer: int, dtype: str) -> Pieces:
    # One layer's encoder: what `--lazy-encoder` has in memory too.
    what = f"{clt.name}: the encoder of layer {layer}"

    def arrays() -> Iterator[NDArray[np.generic]]:
        weight = clt.encoder(layer).weight()
        for start in range(0, clt.n_features, _AT_ONCE):
            yield _as_stored(weight[start : start + _AT_ONCE], dtype, what)

    return Pieces(dtype, (clt.n_features, clt.d_model), arrays())


def _decoder_pieces(clt: Clt, layer: int, dtype: str, *, squeeze: bool) -> Pieces:
    what = f"{clt.name}: the decoder of layer {layer}"
    n_targets = len(clt.targets(layer))

    def arrays() -> Iterator[NDArray[np.generic]]:
        for start in range(0, clt.n_features, _AT_ONCE):
            ids = torch.arange(start, min(start + _AT_ONCE, clt.n_features))
            yield _as_stored(clt.rows(layer, ids.to(clt.b_dec.device)), dtype, what)

    middle = () if squeeze else (n_targets,)
    return Pieces(dtype, (clt.n_features, *middle, clt.d_model), arrays())


def _as_stored(values: Tensor, dtype: str, what: str) -> NDArray[np.generic]:
    wide = np.ascontiguousarray(values.detach().cpu().float().numpy())
    if dtype == "F32":
        return wide
    if dtype == "BF16":
        return to_bf16(wide)
    half = values.detach().cpu().half().numpy()
    if not bool(np.isfinite(half).all()):
        raise PieFastError(
            f"{what} has {np.abs(wide).max():.4g}, F16 holds up to 65504; use BF16 or F32"
        )
    return np.asarray(half)


def _threshold(activation: Activation) -> Tensor | None:
    return activation.threshold if isinstance(activation, JumpReLU) else None


def _named(name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    return {} if tensor is None else {name: tensor}
