"""Files that appear whole or not at all, and safetensors files written without a framework."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.generic] | tuple[str, NDArray[np.generic]]]

#: numpy dtype -> safetensors dtype
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
}


class Written(NamedTuple):
    """What was written: length in bytes and sha256 in hex."""

    bytes: int
    hash: str


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write ``path`` through a sibling temporary file that is renamed when it is on disk.

    Whatever goes wrong, ``path`` is what it was, or is whole.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON, whole or not at all; NaN and infinity are refused."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write(text.encode())


def write_safetensors(
    path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None
) -> Written:
    """Write a safetensors file, whole or not at all.

    Args:
        path: Where.
        tensors: name -> array, or name -> (dtype, array of the bits) where numpy has no such
            dtype (``"BF16"``). Wide elements come first in the file, so that each is aligned.
        metadata: Texts for ``__metadata__``.
    """
    parts = [(name, *_typed(value)) for name, value in tensors.items()]
    parts.sort(key=lambda part: -part[2].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, dtype, array in parts:
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    chunks: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text]
    chunks += [array.reshape(-1).view(np.uint8).data for _, _, array in parts]
    digest = hashlib.sha256()
    with replacing(path) as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return Written(8 + len(text) + end, digest.hexdigest())


def _typed(
    value: NDArray[np.generic] | tuple[str, NDArray[np.generic]],
) -> tuple[str, NDArray[np.generic]]:
    if isinstance(value, tuple):
        return value[0], np.ascontiguousarray(value[1])
    return _DTYPES[value.dtype.name], np.ascontiguousarray(value)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of finite float32 values as bfloat16, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype(np.uint16)
