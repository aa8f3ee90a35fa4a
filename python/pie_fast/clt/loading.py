"""Find out which format a transcoder has, and read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pie_fast.clt import circuit_tracer, clt_forge, per_layer
from pie_fast.clt.circuit_tracer import read_circuit_tracer
from pie_fast.clt.clt_forge import read_clt_forge
from pie_fast.clt.config import read_yaml
from pie_fast.clt.contract import Clt
from pie_fast.clt.crosslayer import is_crosslayer, read_crosslayer
from pie_fast.clt.hub import local_folder
from pie_fast.clt.per_layer import read_gemma_scope_2_clt, read_per_layer
from pie_fast.clt.sae_lens import is_sae_lens, read_sae_lens
from pie_fast.errors import CheckpointError

#: decoders up to this size are kept in memory
HOLD_BYTES = 512 * 1024**2

#: reads a folder: (folder, name=, device=, dtype=)
Reader = Callable[..., Clt]


def load_clt(
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    lazy_encoder: bool = False,
) -> Clt:
    """Read a transcoder from a local folder (relative or absolute) or a hub id.

    Args:
        source: A folder, or `org/repo[/sub/folder][@revision]`, in any of the formats of
            `docs/formats.md`.
        device: Where its tensors go.
        dtype: What they are computed in.
        lazy_encoder: Read encoders from the file at every use, and keep none in memory.

    Raises:
        CheckpointError: No such folder, no known layout, or a file that breaks its format.
    """
    clt = open_clt(source, device=device, dtype=dtype)
    clt.hold(encoders=not lazy_encoder, decoders=clt.decoder_bytes <= HOLD_BYTES)
    return clt


def open_clt(
    source: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Clt:
    """As `load_clt`, of headers, biases and thresholds only: everything large stays on disk.

    Raises:
        CheckpointError: As `load_clt`.
    """
    folder = local_folder(source)
    read = reader_of(folder)
    return read(folder, name=str(source), device=torch.device(device), dtype=dtype)


def reader_of(folder: Path) -> Reader:
    """The reader of the format that a folder has.

    Raises:
        CheckpointError: None that is known; lists what was looked for.
    """
    for _, is_there, reader in _FORMATS:
        if is_there(folder):
            return reader
    looked_for = "; ".join(looked_for for looked_for, _, _ in _FORMATS)
    if (folder / "cfg.json").is_file() and (folder / "sae.safetensors").is_file():
        raise CheckpointError(
            f"{folder}: a sparsify checkpoint (sae.safetensors), which is not read; these are: "
            + looked_for
        )
    raise CheckpointError(
        f"{folder}: no transcoder found; looked for "
        + looked_for
        + f"; the folder holds {sorted(p.name for p in folder.iterdir())[:8]}"
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    return read_yaml(path) if path.is_file() else {}


#: what to look for, whether it is there, who reads it; the first that is there wins
_FORMATS: tuple[tuple[str, Callable[[Path], bool], Reader], ...] = (
    (
        "clt_cfg.json (CLT-Forge)",
        lambda folder: (folder / clt_forge.CONFIG).is_file(),
        read_clt_forge,
    ),
    (
        "config.yaml with model: and checkpoint.safetensors (crosslayer-transcoder)",
        is_crosslayer,
        read_crosslayer,
    ),
    (
        "W_enc_0.safetensors (circuit-tracer CLT)",
        lambda folder: (folder / "W_enc_0.safetensors").is_file(),
        read_circuit_tracer,
    ),
    (
        "config.yaml of model_kind cross_layer_transcoder with transcoders (GemmaScope 2 CLT)",
        lambda folder: (
            _config(folder).get("model_kind") == circuit_tracer.KIND
            and "transcoders" in _config(folder)
        ),
        read_gemma_scope_2_clt,
    ),
    (
        "config.yaml of model_kind transcoder_set, or layer_0.safetensors (per-layer transcoders)",
        lambda folder: (
            _config(folder).get("model_kind") == per_layer.KIND
            or (folder / "layer_0.safetensors").is_file()
        ),
        read_per_layer,
    ),
    (
        "cfg.json and sae_weights.safetensors, here or in folders here (SAELens transcoders)",
        is_sae_lens,
        read_sae_lens,
    ),
)
