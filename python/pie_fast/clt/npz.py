"""Arrays of an npz archive, read without pickle and without loading the large ones.

An npz is a zip of npy files. `np.savez` stores them uncompressed, so the numbers of an array lie in
one piece of the file and its rows are read by pread. Arrays that are compressed, or of another
dtype, are read whole, up to what their own header promises.
"""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.clt.files import Checkpoint, Stored
from pie_fast.clt.rows import HeldRows, RawRows, Rows
from pie_fast.errors import CheckpointError

_LOCAL_HEADER = 30

#: an npy header is a line of text; numpy itself takes no more
_MAX_HEADER = 10_000

#: what zipfile, its decompressors and numpy raise of broken, encrypted or hostile archives
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,
    struct.error,
)

#: compressed arrays above so many bytes may not be more than so many times what they take on disk;
#: weights do not compress to half, and a few kilobytes of zeros could fill the memory
_FREE_BYTES, _MOST_TIMES = 1 << 26, 100

_RAW = {np.dtype("<f4"): "F32", np.dtype("<f2"): "F16"}


@dataclass(frozen=True)
class _Array:
    """One array: its member of the zip, shape, dtype, order, and bytes of its npy header."""

    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool
    header: int


class Archive(Checkpoint):
    """An npz file, checked as a safetensors file is.

    Attributes:
        path: The file.
        stored: Its arrays by name; of floats of any width, which are read as F32.

    Raises:
        CheckpointError: It is not a readable npz, or has an array of Python objects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._arrays = {
                    member.filename.removesuffix(".npy"): self._look_at(archive, member)
                    for member in archive.infolist()
                }
        except _BROKEN as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path}: not a readable npz file: {error}") from error
        self.stored = {key: Stored("F32", array.shape) for key, array in self._arrays.items()}

    def _tensor(self, key: str) -> Tensor:
        array = self._arrays[key]
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(array.member) as file:
                file.read(array.header)
                found = _numbers(file, array)
        except _BROKEN as error:
            raise CheckpointError(f"{self.path}: {key} does not read: {error}") from error
        return torch.from_numpy(found.astype(np.float32))

    def _rows(self, key: str, shape: tuple[int, int]) -> Rows:
        """On disk where the array lies there uncompressed."""
        array = self._arrays[key]
        stored = array.member.compress_type == zipfile.ZIP_STORED
        if not stored or array.fortran or array.dtype not in _RAW:
            return HeldRows(self.read(key, array.shape))
        start = self._data_offset(array.member) + array.header
        return RawRows(self.path, key, _RAW[array.dtype], shape, start)

    def _look_at(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Array:
        with archive.open(member) as file:
            head = file.read(12)
            wide = head[6:7] != b"\x01"
            length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
            if length > _MAX_HEADER:
                raise ValueError(f"{member.filename} has a header of {length} bytes")
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
            header = file.tell()
        if dtype.kind != "f":
            raise CheckpointError(
                f"{self.path}: {member.filename} has dtype {dtype}, must be floats"
            )
        array = _Array(member, shape, dtype, fortran, header)
        promised = header + int(np.prod(shape, dtype=object)) * dtype.itemsize
        if promised != member.file_size:
            raise CheckpointError(
                f"{self.path}: {member.filename} promises {promised} bytes, has {member.file_size}"
            )
        taken = max(member.compress_size, 1)
        if promised > _FREE_BYTES and promised > _MOST_TIMES * taken:
            raise CheckpointError(
                f"{self.path}: {member.filename} would grow from {taken} to {promised} bytes, more "
                f"than {_MOST_TIMES} times"
            )
        return array

    def _data_offset(self, member: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: its local header has lengths of its own."""
        with self.path.open("rb") as file:
            file.seek(member.header_offset)
            header = file.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise CheckpointError(f"{self.path}: {member.filename} is not where the archive says")
        name, extra = struct.unpack("<HH", header[26:30])
        return member.header_offset + _LOCAL_HEADER + int(name) + int(extra)


def _numbers(file: IO[bytes], array: _Array) -> NDArray[np.generic]:
    size = array.member.file_size - array.header
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"ends after {len(content)} of {size} bytes")
    flat: NDArray[np.generic] = np.frombuffer(content, dtype=array.dtype)
    return flat.reshape(array.shape[::-1]).T if array.fortran else flat.reshape(array.shape)
