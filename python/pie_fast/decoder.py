"""Decoder rows, read from a checkpoint's own file without loading it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pie_fast import _native

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray


def decoder_rows(
    path: str | Path, tensor: str, ids: ArrayLike, *, threads: int | None = None
) -> NDArray[np.float32]:
    """Rows of a tensor of a safetensors file, read by pread; repeated ids are read once.

    Args:
        path: The file, e.g. ``W_dec_3.safetensors``.
        tensor: The tensor, e.g. ``W_dec_3`` of shape ``[n_features, n_layers - 3, d_model]``, in
            BF16, F16 or F32.
        ids: ``[n]`` row indices in any order.
        threads: How many; the result does not depend on it.

    Returns:
        ``[n, n_layers - l, d_model]`` float32, in the order of ``ids``.

    Raises:
        DumpError: The file or the tensor is not what it should be; names both.
        PieFastError: An id is not a row.
    """
    array = np.asarray(ids)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"ids has dtype {array.dtype}, must be whole numbers")
    rows = np.ascontiguousarray(array, dtype=np.int64).reshape(-1)
    return _native.decoder_rows(path, tensor, rows, threads=threads)
