"""Find out which format a transcoder has, and read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pie_fast.clt import clt_forge
from pie_fast.clt.circuit_tracer import read_circuit_tracer
from pie_fast.clt.clt_forge import read_clt_forge
from pie_fast.clt.config import read_yaml
from pie_fast.clt.contract import Clt
from pie_fast.clt.crosslayer import is_crosslayer, read_crosslayer
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
    folder = local_folder(source)
    read = reader_of(folder)
    clt = read(folder, name=str(source), device=torch.device(device), dtype=dtype)
    clt.hold(encoders=not lazy_encoder, decoders=clt.decoder_bytes <= HOLD_BYTES)
    return clt


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


def _kind(folder: Path) -> str | None:
    path = folder / "config.yaml"
    return read_yaml(path).get("model_kind") if path.is_file() else None


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
        "cfg.json and sae_weights.safetensors, here or in folders here (SAELens transcoders)",
        is_sae_lens,
        read_sae_lens,
    ),
    (
        "W_enc_0.safetensors (circuit-tracer CLT)",
        lambda folder: (folder / "W_enc_0.safetensors").is_file(),
        read_circuit_tracer,
    ),
)


def local_folder(source: str | Path) -> Path:
    """`source` as a folder on this machine, downloaded when it is a hub id.

    Raises:
        CheckpointError: Neither a folder nor a repository that can be had.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    text = str(source)
    if text.count("/") < 1 or folder.is_absolute() or text.startswith("."):
        raise CheckpointError(f"{text}: no such folder")
    # Only a hub id needs the hub client.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = text.partition("@")
    org, repo, *sub = name.split("/")
    try:
        root = snapshot_download(
            f"{org}/{repo}",
            revision=revision or None,
            allow_patterns=[f"{'/'.join(sub)}/*"] if sub else None,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{text}: neither a folder here nor a repository on the hub: {error}"
        ) from error
    return Path(root, *sub)
