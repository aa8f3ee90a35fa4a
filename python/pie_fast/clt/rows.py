"""Matrices whose rows are fetched by number: from a file, by pread, or from memory.

Decoders are never loaded whole; this is where their rows come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pie_fast import _native
from pie_fast.errors import CheckpointError


class Rows(Protocol):
    """A matrix on disk or in memory.

    Attributes:
        shape: `(n_rows, width)`.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_rows, width)`."""

    def read(self, ids: Tensor) -> Tensor:
        """Rows `ids` (`[n]` int64, any order): `[n, width]` float32 on the CPU."""


@dataclass(frozen=True)
class FileRows:
    """A tensor of a safetensors file, all its axes but the last taken as one.

    Attributes:
        path: The file.
        tensor: Its name in the file.
        shape: `(n_rows, width)`.
    """

    path: Path
    tensor: str
    shape: tuple[int, int]

    def read(self, ids: Tensor) -> Tensor:
        """See `Rows`.

        Raises:
            DumpError: The file has become shorter, or a row is not finite.
        """
        at = ids.cpu().contiguous().numpy()
        return torch.from_numpy(_native.decoder_rows(self.path, self.tensor, at, row_axes=1))


@dataclass(frozen=True)
class RawRows:
    """Numbers at a place of any file, such as an array that an npz archive stores uncompressed.

    Attributes:
        path: The file.
        name: What errors call them.
        dtype: `BF16`, `F16` or `F32`.
        shape: `(n_rows, width)`.
        offset: Of the first byte.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, int]
    offset: int

    def read(self, ids: Tensor) -> Tensor:
        """See `Rows`.

        Raises:
            DumpError: The file has become shorter, or a row is not finite.
        """
        at = ids.cpu().contiguous().numpy()
        found = _native.rows_at(self.path, self.name, self.dtype, self.shape, self.offset, at)
        return torch.from_numpy(found)


@dataclass(frozen=True)
class HeldRows:
    """A matrix in memory, of a transcoder that was handed in as an object.

    Attributes:
        matrix: `[n_rows, width]`, any dtype and device.
        name: What errors call it.
    """

    matrix: Tensor
    name: str = "a weight in memory"

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_rows, width)`."""
        n_rows, width = self.matrix.shape
        return n_rows, width

    def read(self, ids: Tensor) -> Tensor:
        """See `Rows`.

        Raises:
            CheckpointError: A row is not finite.
        """
        found = self.matrix[ids.to(self.matrix.device)].detach().float().cpu()
        if not bool(found.isfinite().all()):
            raise CheckpointError(f"{self.name} holds NaN or infinite values")
        return found


@dataclass(frozen=True)
class Joined:
    """Matrices side by side, each with some of the columns: an encoder sharded by features.

    Attributes:
        parts: Of as many rows each.
    """

    parts: tuple[Rows, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_rows, width)`."""
        return self.parts[0].shape[0], sum(part.shape[1] for part in self.parts)

    def read(self, ids: Tensor) -> Tensor:
        """See `Rows`."""
        if len(self.parts) == 1:
            return self.parts[0].read(ids)
        return torch.cat([part.read(ids) for part in self.parts], dim=1)


class RowCache:
    """Remembers the rows that were asked for last: circuits ask for the same ones again and again.

    Args:
        read: Fetches rows `[n]` -> `[n, ...]`.
        most: How many rows are remembered.

    Attributes:
        most: The same.
    """

    def __init__(self, read: Callable[[Tensor], Tensor], most: int) -> None:
        self._read, self.most = read, most
        self._ids: Tensor | None = None
        self._rows: Tensor | None = None

    def rows(self, ids: Tensor) -> Tensor:
        """Rows `ids`, ascending and none twice; those beyond `most` are read every time."""
        if self._ids is None or self._rows is None or len(self._ids) == 0:
            found = self._read(ids)
        else:
            slot = torch.searchsorted(self._ids, ids).clamp(max=len(self._ids) - 1)
            known = self._ids[slot] == ids
            if bool(known.all()):
                return self._rows[slot]
            fresh = self._read(ids[~known])
            found = fresh.new_empty(len(ids), *fresh.shape[1:])
            found[known], found[~known] = self._rows[slot[known]], fresh
        # A copy, where it is a part: a view would keep all of it.
        whole = len(ids) <= self.most
        self._ids = ids if whole else ids[: self.most].clone()
        self._rows = found if whole else found[: self.most].clone()
        return found
