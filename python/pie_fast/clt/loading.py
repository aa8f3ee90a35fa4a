"""Find out which format a CLT folder has, and read it."""

from __future__ import annotations

from pathlib import Path

import torch

from pie_fast.clt.circuit_tracer import read_circuit_tracer
from pie_fast.clt.contract import Clt
from pie_fast.errors import CheckpointError

#: decoders up to this size are kept in memory
HOLD_BYTES = 512 * 1024**2


def load_clt(
    source: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Clt:
    """Read a CLT from a local folder (relative or absolute) or a hub id.

    Args:
        source: A folder in the circuit-tracer layout, or `org/repo[/sub/folder][@revision]`.
        device: Where its tensors go.
        dtype: What they are computed in.

    Raises:
        CheckpointError: No such folder, no known layout, or a file that breaks its format.
    """
    folder = local_folder(source)
    if not (folder / "W_enc_0.safetensors").exists():
        raise CheckpointError(
            f"{folder}: no CLT found; looked for W_enc_0.safetensors (circuit-tracer layout), "
            f"the folder holds {sorted(p.name for p in folder.iterdir())[:8]}"
        )
    clt = read_circuit_tracer(folder, name=str(source), device=torch.device(device), dtype=dtype)
    size = clt.n_features * clt.d_model * 2 * clt.n_layers * (clt.n_layers + 1)
    if size <= HOLD_BYTES:
        clt.hold_decoders()
    return clt


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
