"""SAELens transcoders: a folder of one layer, or a folder of such folders.

    cfg.json                  architecture, d_in d, d_out = d, d_sae F, metadata: {hook_name,
                              hook_name_out}, or older: these two at the top, hook_point, hook_layer
    sae_weights.safetensors   W_enc [d, F]  b_enc [F]  W_dec [F, d]  b_dec [d]
                              [threshold [F]]  [W_skip [d, d], applied as x @ W_skip.T]

    transcoder                ReLU            jumprelu_transcoder         pre > max(threshold, 0)
    skip_transcoder           ReLU, W_skip    jumprelu_skip_transcoder    both

Layers without a folder keep the model's MLP. What SAELens would do to inputs at run time
(`normalize_activations`, `apply_b_dec_to_input`) has no place in weights, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pie_fast.clt.activation import Activation, JumpReLU, ReLU
from pie_fast.clt.assembling import Layer, assemble
from pie_fast.clt.config import read_json, whole_number, within
from pie_fast.clt.contract import Clt
from pie_fast.clt.decoder import Slab
from pie_fast.clt.encoder import Weight
from pie_fast.clt.files import Checkpoint, identity_of
from pie_fast.errors import CheckpointError
from pie_fast.untrusted import shown

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

#: by `architecture`, whether it has a threshold and whether it has a skip connection
ARCHITECTURES = {
    "transcoder": (False, False),
    "skip_transcoder": (False, True),
    "jumprelu_transcoder": (True, False),
    "jumprelu_skip_transcoder": (True, True),
}

#: what a configuration may say of how inputs are treated; whatever else it says is refused
_EXACT: dict[str, tuple[object, ...]] = {
    "apply_b_dec_to_input": (False,),
    "normalize_activations": ("none", False, None),
    "reshape_activations": ("none", None),
    "rescale_acts_by_decoder_norm": (False,),
    "activation_fn": ("relu",),
    "activation_fn_str": ("relu",),
    "hook_head_index": (None,),
    "hook_point_head_index": (None,),
}

#: processing of the model that changes what hook points see
_PROCESSING = "fold_ln", "center_writing_weights"


@dataclass(frozen=True)
class Transcoder:
    """One transcoder.

    Attributes:
        number: Its layer.
        hooks: Read and write hook.
        layer: The rest.
    """

    number: int
    hooks: tuple[str, str]
    layer: Layer


def is_sae_lens(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return bool(_folders(folder))


def read_sae_lens(folder: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> Clt:
    """Read one SAELens transcoder, or one of each of some layers.

    Raises:
        CheckpointError: A file is broken, of a shape that does not fit, or says something that
            cannot be read exactly.
    """
    folders = _folders(folder)
    found = [
        transcoder(one / CONFIG, read_json(one / CONFIG), Checkpoint(one / WEIGHTS))
        for one in folders
    ]
    files = [one / file for one in folders for file in (CONFIG, WEIGHTS)]
    return together(found, name=name, identity=identity_of(files), device=device, dtype=dtype)


def transcoder(path: Path, config: dict[str, Any], file: Checkpoint) -> Transcoder:
    """One transcoder of its configuration and its tensors.

    Raises:
        CheckpointError: It cannot be read exactly.
    """
    jumps, skips = _architecture(path, config)
    n_features = whole_number(path, config, "d_sae")
    d_model = whole_number(path, config, "d_in")
    if whole_number(path, config, "d_out") != d_model:
        raise CheckpointError(f"{path}: d_out is {config['d_out']}, must be d_in, {d_model}")
    metadata = within(path, config, "metadata") if "metadata" in config else {}
    known = {**config, **metadata}
    _check_exact(path, known)
    number, hooks = _hooks(path, known)
    for key, there in (("threshold", jumps), ("W_skip", skips)):
        if key in file and not there:
            raise CheckpointError(
                f"{file.path}: holds {key}, which architecture {config['architecture']!r} of "
                f"{path.name} does not have"
            )
    weight = file.rows("W_enc", (d_model, n_features))
    activation: Activation = ReLU()
    if jumps:
        activation = JumpReLU(file.read("threshold", (n_features,)).clamp(min=0))
    layer = Layer(
        weight=Weight(weight, n_features, d_model, transposed=True),
        bias=file.read("b_enc", (n_features,)),
        activation=activation,
        slabs=(Slab(file.rows("W_dec", (n_features, d_model)), range(n_features), range(1)),),
        targets=range(number, number + 1),
        b_dec=file.read("b_dec", (d_model,)),
        skip=file.read("W_skip", (d_model, d_model)) if skips else None,
        source=str(file.path),
    )
    return Transcoder(number, hooks, layer)


def together(
    found: Sequence[Transcoder],
    *,
    name: str,
    identity: str,
    device: torch.device,
    dtype: torch.dtype,
) -> Clt:
    """Transcoders of different layers as one CLT.

    Raises:
        CheckpointError: Two of one layer, or of different hooks or widths.
    """
    first = found[0]
    layers: list[Layer | None] = [None] * (1 + max(one.number for one in found))
    for one in found:
        before = layers[one.number]
        if before is not None:
            raise CheckpointError(
                f"{one.layer.source}: layer {one.number} is also that of {before.source}: one "
                "transcoder a layer"
            )
        if one.hooks != first.hooks:
            raise CheckpointError(
                f"{one.layer.source}: hooks {' -> '.join(one.hooks)}, but {first.layer.source} "
                f"has {' -> '.join(first.hooks)}: all layers must agree"
            )
        layers[one.number] = one.layer
    return assemble(
        layers,
        name=name,
        hooks=first.hooks,
        identity=identity,
        device=device,
        dtype=dtype,
        partial=True,
    )


def _folders(folder: Path) -> list[Path]:
    """The folder itself, or those in it, that hold a transcoder."""

    def holding(folders: Iterable[Path]) -> list[Path]:
        files = CONFIG, WEIGHTS
        return [one for one in folders if all((one / file).is_file() for file in files)]

    return holding([folder]) or holding(sorted(folder.iterdir()))


def _architecture(path: Path, config: dict[str, Any]) -> tuple[bool, bool]:
    found = config.get("architecture")
    if not isinstance(found, str) or found not in ARCHITECTURES:
        raise CheckpointError(
            f"{path}: architecture is {shown(found)}, must be one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[found]


def _check_exact(path: Path, known: dict[str, Any]) -> None:
    for key, exact in _EXACT.items():
        if key in known and not any(known[key] is x or known[key] == x for x in exact):
            raise CheckpointError(
                f"{path}: {key} is {shown(known[key])}, which cannot be read exactly; must be "
                f"{' or '.join(repr(x) for x in exact)}"
            )
    processing = known.get("model_from_pretrained_kwargs")
    if not isinstance(processing, dict):
        return
    for key in _PROCESSING:
        if processing.get(key, False) is not False:
            raise CheckpointError(
                f"{path}: model_from_pretrained_kwargs.{key} is {shown(processing[key])}: the "
                "transcoder was trained on a processed model; must be false"
            )


def _hooks(path: Path, known: dict[str, Any]) -> tuple[int, tuple[str, str]]:
    """The one layer that is read and written, and the two hooks without `blocks.{l}.`."""
    read = known.get("hook_name", known.get("hook_point"))
    read_layer, read_hook = _hook(path, "hook_name", read, known.get("hook_layer"))
    write, written = known.get("hook_name_out"), known.get("hook_layer_out")
    write_layer, write_hook = _hook(path, "hook_name_out", write, written)
    if read_layer != write_layer:
        raise CheckpointError(
            f"{path}: hook_name_out is {shown(write)}, must be of layer {read_layer} as hook_name "
            f"{read!r}"
        )
    return read_layer, (read_hook, write_hook)


def _hook(path: Path, key: str, name: object, layer: object) -> tuple[int, str]:
    match = re.fullmatch(r"blocks\.(\d{1,4})\.(.+)", name) if isinstance(name, str) else None
    if match is None:
        raise CheckpointError(
            f"{path}: {key} is {shown(name)}, must be a hook point such as 'blocks.0.hook_mlp_out'"
        )
    if layer is not None and layer != int(match[1]):
        where = key.replace("name", "layer")
        raise CheckpointError(f"{path}: {where} is {shown(layer)}, but {key} is {shown(name)}")
    return int(match[1]), match[2]
