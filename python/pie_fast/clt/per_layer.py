"""Per-layer transcoders, in a circuit-tracer folder.

    config.yaml            model_kind: transcoder_set, feature_input_hook, feature_output_hook,
                           [transcoders: [file, ...]]  [activation: topk | relu]  [k]
    layer_{l}.safetensors  the files, where config.yaml does not list them

Each file is of one of three kinds, told apart by the names in it:

    circuit-tracer   W_enc [F, d]  W_dec [F, d]  b_enc [F]  b_dec [d]  [W_skip [d, d]: x @ W_skip.T]
                     [activation_function.threshold [F]]
    GemmaScope 1     npz: W_enc [d, F]  W_dec [F, d]  b_enc  b_dec  threshold [F]
    GemmaScope 2     w_enc [d, F]  w_dec [F, d]  b_enc  b_dec  threshold [F]
                     [affine_skip_connection [d, d]: x @ it]

In a folder of `model_kind: cross_layer_transcoder` GemmaScope 2 files have `w_dec [F, L, d]`, of
which the targets from their own layer on are used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from pie_fast.clt import circuit_tracer
from pie_fast.clt.activation import Activation, JumpReLU, ReLU, TopK
from pie_fast.clt.assembling import Layer, assemble
from pie_fast.clt.config import check_kind, hooks_of, read_yaml, whole_number
from pie_fast.clt.contract import Clt
from pie_fast.clt.decoder import Slab
from pie_fast.clt.encoder import Weight
from pie_fast.clt.files import Checkpoint, check_thresholds_known, identity_of
from pie_fast.clt.hub import hub_file
from pie_fast.clt.npz import Archive
from pie_fast.errors import CheckpointError
from pie_fast.untrusted import shown

#: `model_kind` of config.yaml
KIND = "transcoder_set"


def read_per_layer(folder: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> Clt:
    """Read a folder of one transcoder a layer.

    Raises:
        CheckpointError: A file is missing, broken, or of a shape that does not fit the others.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: it names the hooks that layer_*.safetensors read and write "
            "(feature_input_hook, feature_output_hook) and model_kind: transcoder_set"
        )
    config = read_yaml(path)
    check_kind(path, config, KIND)
    files = listed_files(path, config) or _numbered(folder)
    activation = _configured(path, config)
    layers = [_layer(file, number, activation) for number, file in enumerate(files)]
    _check_same_kind(layers)
    return _assembled(layers, files, path, config, name, device, dtype)


def read_gemma_scope_2_clt(
    folder: Path, *, name: str, device: torch.device, dtype: torch.dtype
) -> Clt:
    """Read a folder of a GemmaScope 2 cross-layer transcoder: one file a layer.

    Raises:
        CheckpointError: A file is missing, broken, or of a shape that does not fit the others.
    """
    path = folder / "config.yaml"
    config = read_yaml(path)
    check_kind(path, config, circuit_tracer.KIND)
    files = _without_repeats(listed_files(path, config))
    layers = [_gemma_scope_2_clt(Checkpoint(file), n, len(files)) for n, file in enumerate(files)]
    return _assembled(layers, files, path, config, name, device, dtype)


def listed_files(path: Path, config: dict[str, Any]) -> list[Path]:
    """The files that `transcoders` of a config.yaml lists, hub ones downloaded; [] for none.

    Raises:
        CheckpointError: It is no list of names, or a file is not there.
    """
    listed = config.get("transcoders")
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise CheckpointError(f"{path}: transcoders is {shown(listed)}, must be a list of files")
    found = [hub_file(one) if one.startswith("hf://") else path.parent / one for one in listed]
    for one, file in zip(listed, found, strict=True):
        if not one.startswith("hf://") and (Path(one).is_absolute() or ".." in Path(one).parts):
            raise CheckpointError(
                f"{path}: transcoders names {shown(one)}, which is not in the folder"
            )
        if not _is_file(file):
            raise CheckpointError(f"{path}: transcoders names {shown(one)}, which is not there")
    return found


def _assembled(
    layers: list[Layer],
    files: list[Path],
    path: Path,
    config: dict[str, Any],
    name: str,
    device: torch.device,
    dtype: torch.dtype,
) -> Clt:
    return assemble(
        layers,
        name=name,
        hooks=hooks_of(path, config),
        identity=identity_of([*files, path]),
        device=device,
        dtype=dtype,
    )


def _check_same_kind(layers: list[Layer]) -> None:
    kinds = [isinstance(layer.activation, JumpReLU) for layer in layers]
    if any(kinds) and not all(kinds):
        raise CheckpointError(
            f"{layers[kinds.index(False)].source}: activation_function.threshold is missing, "
            f"though {layers[kinds.index(True)].source} has one: all layers or none"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file system takes
        return False


def _numbered(folder: Path) -> list[Path]:
    named = [(re.fullmatch(r"layer_(\d+)\.safetensors", p.name), p) for p in folder.iterdir()]
    found = {int(match[1]): path for match, path in named if match}
    if not found:
        raise CheckpointError(
            f"{folder}: config.yaml lists no transcoders and there is no layer_0.safetensors"
        )
    for layer in range(max(found) + 1):
        if layer not in found:
            raise CheckpointError(
                f"{folder}: layer_{layer}.safetensors is missing, though there is one of layer "
                f"{max(found)}"
            )
    return [found[layer] for layer in range(max(found) + 1)]


def _without_repeats(files: list[Path]) -> list[Path]:
    """Published configurations repeat the last file."""
    return list(dict.fromkeys(files))


def _configured(path: Path, config: dict[str, Any]) -> Activation | None:
    """The activation that config.yaml names; None where the files tell."""
    named = config.get("activation")
    if named is None:
        return None
    if named == "relu":
        return ReLU()
    if named == "topk":
        return TopK(whole_number(path, config, "k"))
    raise CheckpointError(f"{path}: activation is {shown(named)}, must be relu or topk")


def _layer(path: Path, number: int, activation: Activation | None) -> Layer:
    if path.suffix == ".npz":
        return _gemma_scope(Archive(path), number)
    file = Checkpoint(path)
    if "w_enc" in file:
        return _gemma_scope(file, number)
    (n_features,), (d_model,) = file.shape("b_enc", 1), file.shape("b_dec", 1)
    threshold = "activation_function.threshold"
    check_thresholds_known(file, {threshold})
    if activation is not None and threshold in file:
        raise CheckpointError(
            f"{path}: {threshold} is there, though config.yaml says activation "
            f"{'relu' if isinstance(activation, ReLU) else 'topk'}: one of the two"
        )
    if activation is None:
        found = file.read(threshold, (n_features,)) if threshold in file else None
        activation = ReLU() if found is None else JumpReLU(found)
    return Layer(
        weight=Weight(file.rows("W_enc", (n_features, d_model)), n_features, d_model),
        bias=file.read("b_enc", (n_features,)),
        activation=activation,
        slabs=(Slab(file.rows("W_dec", (n_features, d_model)), range(n_features), range(1)),),
        targets=range(number, number + 1),
        b_dec=file.read("b_dec", (d_model,)),
        skip=file.read("W_skip", (d_model, d_model)) if "W_skip" in file else None,
        source=str(path),
    )


def _gemma_scope(file: Checkpoint, number: int) -> Layer:
    """GemmaScope 1 names its weights in capitals, 2 in small letters."""
    enc, dec = ("w_enc", "w_dec") if "w_enc" in file else ("W_enc", "W_dec")
    (n_features,), (d_model,) = file.shape("b_enc", 1), file.shape("b_dec", 1)
    rows = file.rows(dec, (n_features, d_model))
    slab = Slab(rows, range(n_features), range(1))
    return _transposed(file, number, range(number, number + 1), enc, slab)


def _gemma_scope_2_clt(file: Checkpoint, number: int, n_layers: int) -> Layer:
    (n_features,), (d_model,) = file.shape("b_enc", 1), file.shape("b_dec", 1)
    rows = file.rows("w_dec", (n_features, n_layers, d_model))
    targets = range(number, n_layers)
    # Every file has all targets; those below its own layer are not used.
    slab = Slab(rows, range(n_features), range(len(targets)), first=number, step=n_layers)
    return _transposed(file, number, targets, "w_enc", slab)


def _transposed(file: Checkpoint, number: int, targets: range, enc: str, slab: Slab) -> Layer:
    (n_features,), (d_model,) = file.shape("b_enc", 1), file.shape("b_dec", 1)
    affine = "affine_skip_connection"
    return Layer(
        weight=Weight(file.rows(enc, (d_model, n_features)), n_features, d_model, transposed=True),
        bias=file.read("b_enc", (n_features,)),
        activation=JumpReLU(file.read("threshold", (n_features,))),
        slabs=(slab,),
        targets=targets,
        b_dec=file.read("b_dec", (d_model,)),
        skip=file.read(affine, (d_model, d_model)).T.contiguous() if affine in file else None,
        source=str(file.path),
    )
