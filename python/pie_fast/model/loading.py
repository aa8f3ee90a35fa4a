"""Boot a language model on a device."""

from __future__ import annotations

import copy
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.model.host import Host


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
        raise PieFastError(
            f"device {device!r} is not here: {torch.cuda.device_count()} CUDA devices; cpu is"
        )
    if where.type == "mps" and not torch.backends.mps.is_available():
        raise PieFastError("device 'mps' is not here; cpu is")
    if where.type not in ("cpu", "cuda", "mps"):
        raise PieFastError(f"device {device!r} is not supported: auto, cpu, cuda, cuda:N or mps")
    return where


def load_host(model: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype) -> Host:
    """A host from a folder, a hub id, a booted bridge, or a HuggingFace model and its tokenizer.

    Objects keep their dtype. A HuggingFace model becomes part of the bridge: its modules are
    wrapped in place and its parameters frozen.

    Raises:
        CheckpointError: The checkpoint is missing or broken.
        PieFastError: The object is none of these.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.model_bridge import TransformerBridge

        if isinstance(model, TransformerBridge):
            return Host(model.to(device), str(model.cfg.model_name))
        if isinstance(model, str | Path):
            return Host(_boot(TransformerBridge, str(model), None, None, device, dtype), str(model))
        if isinstance(model, torch.nn.Module):
            if tokenizer is None:
                raise PieFastError("a HuggingFace model object needs tokenizer=...")
            config: Any = model.config
            name = str(getattr(config, "_name_or_path", "") or type(model).__name__)
            if not config.architectures:  # as saving it would: the bridge looks there
                config.architectures = [type(model).__name__]
            ready, theirs = model.to(device), _as_it_is(tokenizer)
            booted = _boot(TransformerBridge, name, ready, theirs, device, dtype)
            return Host(booted, name, tokenizer)
    raise PieFastError(
        f"model is a {type(model).__name__}; must be a folder, a hub id, a TransformerBridge or a "
        f"HuggingFace model"
    )


def _as_it_is(tokenizer: Any) -> Any:
    """A copy that the bridge neither changes nor loads anew from where it came from."""
    copied = copy.deepcopy(tokenizer)
    copied.init_kwargs.setdefault("name_or_path", "")
    copied.init_kwargs["add_bos_token"] = True  # says that nothing is left to do
    return copied


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep the libraries from writing to the terminal; what transformers had to say is yielded.

    Deprecations inside the libraries are not the user's to mend. But transformers only warns when
    it fills in weights that a checkpoint lacks at random, which would make every result wrong.
    """
    from transformers.utils import logging as transformers_logging

    said: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers.modeling_utils")
    before = logger.level, logger.propagate
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logger.addHandler(listener)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _boot(
    bridge: Any, name: str, model: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype
) -> Any:
    if model is None and (Path(name).is_absolute() or name.startswith(".")):
        folder = Path(name)
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: no HuggingFace checkpoint (config.json) there")
    try:
        with _quiet() as said:
            booted = bridge.boot_transformers(
                name, hf_model=model, tokenizer=tokenizer, device=str(device), dtype=dtype
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        said_of_it = textwrap.shorten(str(error), 500)  # TransformerLens lists what it supports
        raise CheckpointError(f"{name}: the model does not load: {said_of_it}") from error
    for line in "\n".join(said).splitlines():
        if "MISSING" in line or "newly initialized" in line:
            plain = re.sub("\x1b\\[[0-9;]*m", "", line)  # it is coloured on a terminal
            raise CheckpointError(f"{name}: weights are missing: {plain.strip(' |')}")
    return booted
