"""From a model and a CLT, however they are given, to a replacement model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from pie_fast.clt import Clt, load_clt
from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.model.host import Host
from pie_fast.model.replacement import ReplacementModel


def load_model(
    model: Any,
    clt: str | Path | Clt,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    tokenizer: Any = None,
    ignore_positions: int | None = None,
) -> ReplacementModel:
    """Put a language model and its CLT together.

    Args:
        model: A local folder or hub id of a HuggingFace checkpoint, a booted TransformerBridge,
            or a HuggingFace model (then with its `tokenizer`).
        clt: A local folder, a hub id, or a loaded `Clt`.
        device: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: Of the model and of everything computed; float32 when None.
        tokenizer: With a HuggingFace model object only.
        ignore_positions: See `ReplacementModel`.

    Raises:
        CheckpointError: A checkpoint is missing or broken, or the two do not fit each other.
        PieFastError: Unknown device.
    """
    where = resolve_device(device)
    dtype = dtype or torch.float32
    host = _host(model, tokenizer, where, dtype)
    if not isinstance(clt, Clt):
        clt = load_clt(clt, device=where, dtype=torch.float32)
    return ReplacementModel(host, clt, ignore_positions=ignore_positions)


def resolve_device(device: str) -> torch.device:
    """`auto` or a torch device name as a device that is there.

    Raises:
        PieFastError: Unknown, or not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise PieFastError(f"unknown device {device!r}: auto, cpu, cuda, cuda:N or mps") from error
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise PieFastError(f"device {device!r} is not here: {torch.cuda.device_count()} CUDA devices")
    if where.type == "mps" and not torch.backends.mps.is_available():
        raise PieFastError("device 'mps' is not here")
    if where.type not in ("cpu", "cuda", "mps"):
        raise PieFastError(f"device {device!r} is not supported: auto, cpu, cuda, cuda:N or mps")
    return where


def _host(model: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype) -> Host:
    with warnings.catch_warnings():
        # Deprecations inside the libraries at import time are not the user's to mend.
        warnings.simplefilter("ignore")
        from transformer_lens.model_bridge import TransformerBridge

        if isinstance(model, TransformerBridge):
            return Host(model.to(device), str(model.cfg.model_name))
        if isinstance(model, str | Path):
            return Host(_boot(TransformerBridge, str(model), None, None, device, dtype), str(model))
        if isinstance(model, torch.nn.Module):
            if tokenizer is None:
                raise PieFastError("a HuggingFace model object needs tokenizer=...")
            name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
            return Host(_boot(TransformerBridge, name, model, tokenizer, device, dtype), name)
    raise PieFastError(
        f"model is a {type(model).__name__}; must be a folder, a hub id, a TransformerBridge or a "
        f"HuggingFace model"
    )


def _boot(
    bridge: Any, name: str, model: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype
) -> Any:
    if model is None and (Path(name).is_absolute() or name.startswith(".")):
        folder = Path(name)
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: no HuggingFace checkpoint (config.json) there")
    try:
        return bridge.boot_transformers(
            name, hf_model=model, tokenizer=tokenizer, device=str(device), dtype=dtype
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{name}: the model does not load: {error}") from error
