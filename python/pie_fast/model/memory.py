"""What to do when a device has no memory left."""

from __future__ import annotations

import gc

import torch

#: what others than CUDA say; it raises `torch.OutOfMemoryError`
_SAID = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _SAID)


def release_memory() -> None:
    """Give back what torch keeps for later; call it where the error is gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
