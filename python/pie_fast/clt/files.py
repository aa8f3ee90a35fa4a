"""Safetensors files of a checkpoint, distrusted: every refusal names file, tensor and shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pie_fast.clt.rows import FileRows, HeldRows, Rows
from pie_fast.errors import CheckpointError

#: dtypes that weights may have on disk
FLOATS = ("BF16", "F16", "F32")

_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


@dataclass(frozen=True)
class Stored:
    """A tensor of a file that has not been read.

    Attributes:
        dtype: As safetensors spells it.
        shape: Its shape.
    """

    dtype: str
    shape: tuple[int, ...]


class Checkpoint:
    """One safetensors file: only its header is read until a tensor is asked for.

    Attributes:
        path: The file.
        stored: Its tensors by name.

    Raises:
        CheckpointError: It is not a readable safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
                self.stored = {
                    key: Stored(str(found.get_dtype()), tuple(found.get_shape()))
                    for key, found in slices.items()
                }
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error

    def __contains__(self, key: str) -> bool:
        return key in self.stored

    def shape(self, key: str, n_axes: int) -> tuple[int, ...]:
        """The shape of a tensor that decides the shapes of others.

        Raises:
            CheckpointError: It is missing, holds no floats, or has another number of axes.
        """
        shape = self._floats(key).shape
        if len(shape) != n_axes:
            raise CheckpointError(
                f"{self.path}: {key} has shape {list(shape)}, must have {n_axes} axes"
            )
        return shape

    def expect(self, key: str, shape: Sequence[int]) -> None:
        """Refuse a tensor that is missing, holds no floats, or has another shape.

        Raises:
            CheckpointError: With the shape found and the shape expected.
        """
        found = self._floats(key).shape
        if found != tuple(shape):
            swapped = found == tuple(reversed(shape)) and len(found) == 2
            hint = ": it is transposed" if swapped else ""
            raise CheckpointError(
                f"{self.path}: {key} has shape {list(found)}, must be {list(shape)}{hint}"
            )

    def read(self, key: str, shape: Sequence[int]) -> Tensor:
        """A small tensor, checked: float32 on the CPU.

        Raises:
            CheckpointError: As `expect`, or it holds NaN or infinite values.
        """
        self.expect(key, shape)
        found = self._tensor(key)
        check_finite(f"{self.path}: {key}", found)
        return found

    def rows(self, key: str, shape: Sequence[int]) -> Rows:
        """A large tensor as rows of its last axis, to be read when they are needed.

        Raises:
            CheckpointError: As `expect`.
        """
        self.expect(key, shape)
        n_rows = 1
        for axis in shape[:-1]:
            n_rows *= axis
        return self._rows(key, (n_rows, shape[-1]))

    def _tensor(self, key: str) -> Tensor:
        try:
            with safe_open(self.path, framework="pt") as file:
                found: Tensor = file.get_tensor(key).float()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path}: {key} does not read: {error}") from error
        return found

    def _rows(self, key: str, shape: tuple[int, int]) -> Rows:
        return FileRows(self.path, key, shape)

    def _floats(self, key: str) -> Stored:
        if key not in self.stored:
            names = sorted(self.stored)
            raise CheckpointError(f"{self.path}: {key} is missing, holds {names[:12]}")
        found = self.stored[key]
        if found.dtype not in FLOATS:
            raise CheckpointError(
                f"{self.path}: {key} has dtype {found.dtype}, must be {', '.join(FLOATS)}"
            )
        return found


class Held(Checkpoint):
    """Tensors of an object, checked as those of a file are.

    Attributes:
        path: What errors call the object.
    """

    def __init__(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self.path = Path(name)
        self._tensors = {key: tensor.detach() for key, tensor in tensors.items()}
        self.stored = {
            key: Stored(_DTYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
            for key, tensor in self._tensors.items()
        }

    def _tensor(self, key: str) -> Tensor:
        return self._tensors[key].float().cpu()

    def _rows(self, key: str, shape: tuple[int, int]) -> Rows:
        return HeldRows(self._tensors[key].reshape(shape), f"{self.path}: {key}")


def check_thresholds_known(file: Checkpoint, known: Set[str]) -> None:
    """Refuse thresholds under a name that is not read: without them every feature would be a ReLU.

    Raises:
        CheckpointError: With the name found and those that are read.
    """
    other = sorted(key for key in file.stored if "threshold" in key and key not in known)
    if other:
        raise CheckpointError(
            f"{file.path}: {other[0]} is not a threshold that this format has; must be "
            f"{' or '.join(sorted(known)[:3])}"
        )


def check_finite(what: str, tensor: Tensor) -> None:
    """Refuse NaN and infinite values.

    Raises:
        CheckpointError: `what` holds some.
    """
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{what} holds NaN or infinite values")


def identity_of(files: Iterable[Path]) -> str:
    """A short hash of names, sizes and first bytes: tells CLTs apart without reading GBs."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            digest.update(file.read(65536))
    return digest.hexdigest()[:16]
