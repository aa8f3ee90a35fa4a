"""Files that appear whole or not at all, and safetensors files written without a framework."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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

#: bytes an element of a safetensors dtype
_SIZES = {spelt: np.dtype(name).itemsize for name, spelt in _DTYPES.items()} | {"BF16": 2}

#: key of the checksum of a sealed file, and what stands for it while it is computed; see
#: `pie_fast.seals`.
SEAL, BLANK = "checksum", "0" * 64

#: names of temporary files: of what, and of which process
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


class Written(NamedTuple):
    """What was written: length in bytes, sha256 and CRC-32 in hex."""

    bytes: int
    hash: str
    crc32: str


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write ``path`` through a sibling temporary file that is renamed when it is on disk.

    Whatever goes wrong, ``path`` is what it was, or is whole, and errors name it.

    Raises:
        OSError: The folder is not there, ``path`` is a folder, the disk is full, ...
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # What a full disk says names no file at all.
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of `replacing`; only where no other process works."""
    for path in folder.rglob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def swap_in(new: Path, path: Path) -> None:
    """Put a folder in the place of another, which goes last: one of them is whole at any time."""
    old = path.with_name(f"{path.name}.replaced")
    if old.exists():  # of a swap that was stopped here
        shutil.rmtree(old)
    path.rename(old)
    new.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(old)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False))


def write_safetensors(
    path: Path,
    tensors: Tensors,
    metadata: Mapping[str, str] | None = None,
    *,
    seal: bool = False,
) -> Written:
    """Write a safetensors file, whole or not at all.

    Args:
        path: Where.
        tensors: name -> array, or name -> (dtype, array of the bits) where numpy has no such
            dtype (``"BF16"``). Wide elements come first in the file, so that each is aligned.
        metadata: Texts for ``__metadata__``.
        seal: Add a checksum to the metadata, see `pie_fast.seals`; it is the hash that is returned.
    """
    parts = [(name, *_typed(value)) for name, value in tensors.items()]
    parts.sort(key=lambda part: -part[2].dtype.itemsize)
    pieces = {name: Pieces(dtype, array.shape, [array]) for name, dtype, array in parts}
    return write_pieces(path, pieces, metadata, seal=seal)


class Pieces(NamedTuple):
    """A tensor that is never whole in memory.

    Attributes:
        dtype: As safetensors spells it.
        shape: Of all of it.
        arrays: Its numbers, or their bits, in order.
    """

    dtype: str
    shape: tuple[int, ...]
    arrays: Iterable[NDArray[np.generic]]


def write_pieces(
    path: Path,
    tensors: Mapping[str, Pieces],
    metadata: Mapping[str, str] | None = None,
    *,
    seal: bool = False,
) -> Written:
    """As `write_safetensors`, of tensors that come in pieces; they stand in the order given.

    Raises:
        ValueError: The pieces of a tensor are more or less than its shape.
    """
    texts = {**(metadata or {}), **({SEAL: BLANK} if seal else {})}
    header: dict[str, object] = {"__metadata__": texts} if texts else {}
    ends, end = [], 0
    for name, (dtype, shape, _) in tensors.items():
        begin, end = end, end + math.prod(shape) * _SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        ends.append(end)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest, crc32 = hashlib.sha256(), 0
    with replacing(path) as file:

        def write(chunk: bytes | memoryview) -> None:
            nonlocal crc32
            digest.update(chunk)
            crc32 = zlib.crc32(chunk, crc32)
            file.write(chunk)

        write(len(text).to_bytes(8, "little"))
        write(text)
        for (name, pieces), promised in zip(tensors.items(), ends, strict=True):
            for array in pieces.arrays:
                write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            written = file.tell() - 8 - len(text)
            if written != promised:
                raise ValueError(f"{path}: {name} ends at byte {written}, must at {promised}")
        if seal:
            file.seek(8 + text.index(f'"{SEAL}":"{BLANK}"'.encode()) + len(f'"{SEAL}":"'))
            file.write(digest.hexdigest().encode())
    return Written(8 + len(text) + end, digest.hexdigest(), f"{crc32:08x}")


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
