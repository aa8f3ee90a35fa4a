"""The prompts of a feature dump: tokens, answers and metrics, one row per prompt."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.errors import DumpError, PieFastError
from pie_fast.storage import write_safetensors
from pie_fast.untrusted import check_regular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_DTYPES: dict[str, type[np.generic]] = {
    "tokens": np.int32,
    "prompt_ptr": np.int64,
    "answer": np.int32,
    "foil": np.int32,
    "answer_position": np.int32,
    "metric_clean": np.float64,
    "metric_baseline": np.float64,
    "counterfactual_tokens": np.int32,
    "counterfactual_ptr": np.int64,
}


@dataclass(frozen=True, eq=False)
class PromptTable:
    """What a dump knows of its prompts.

    Attributes:
        tokens: ``[n_tokens]`` int32, the tokens of all prompts, one prompt after the other.
        prompt_ptr: ``[n_prompts + 1]`` int64, where each prompt begins in ``tokens``.
        answer: ``[n_prompts]`` int32 token ids, -1 where there is none.
        foil: ``[n_prompts]`` int32 token ids, -1 where there is none.
        answer_position: ``[n_prompts]`` int32, the position whose logits the metric reads.
        metric_clean: ``[n_prompts]`` float64, the metric of the model as it is.
        metric_baseline: ``[n_prompts]`` float64, the metric with every feature at its baseline.
        counterfactual_tokens: As ``tokens``, or None.
        counterfactual_ptr: As ``prompt_ptr``, or None.
    """

    tokens: NDArray[np.int32]
    prompt_ptr: NDArray[np.int64]
    answer: NDArray[np.int32]
    foil: NDArray[np.int32]
    answer_position: NDArray[np.int32]
    metric_clean: NDArray[np.float64]
    metric_baseline: NDArray[np.float64]
    counterfactual_tokens: NDArray[np.int32] | None = None
    counterfactual_ptr: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _cast(name, value, dtype))
        _check_ptr("prompt_ptr", self.prompt_ptr, len(self.tokens))
        n = self.n_prompts
        for name in ("answer", "foil", "answer_position", "metric_clean", "metric_baseline"):
            if len(getattr(self, name)) != n:
                raise PieFastError(f"{name} has {len(getattr(self, name))} rows, must be {n}")
        for name in ("answer", "foil"):
            _check_least(name, getattr(self, name), -1)
        for name in ("metric_clean", "metric_baseline"):
            check_finite(name, getattr(self, name))
        _check_least("tokens", self.tokens, 0)
        self._check_positions()
        self._check_counterfactual()

    def _check_positions(self) -> None:
        lengths = np.diff(self.prompt_ptr)
        # A prompt whose tokens are not known (some latent caches) has no positions to check.
        bad = (self.answer_position < 0) | ((self.answer_position >= lengths) & (lengths > 0))
        if bad.any():
            i = int(bad.argmax())
            raise PieFastError(
                f"answer_position {self.answer_position[i]} of prompt {i} is outside "
                f"[0, {lengths[i]})"
            )

    def _check_counterfactual(self) -> None:
        if self.counterfactual_tokens is None or self.counterfactual_ptr is None:
            if self.counterfactual_tokens is not None or self.counterfactual_ptr is not None:
                raise PieFastError(
                    "counterfactual_tokens and counterfactual_ptr belong together: one is missing"
                )
            return
        _check_least("counterfactual_tokens", self.counterfactual_tokens, 0)
        _check_ptr("counterfactual_ptr", self.counterfactual_ptr, len(self.counterfactual_tokens))
        if len(self.counterfactual_ptr) != len(self.prompt_ptr):
            raise PieFastError(
                f"counterfactual_ptr has {len(self.counterfactual_ptr)} entries, "
                f"must be {len(self.prompt_ptr)} (n_prompts + 1)"
            )

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return len(self.prompt_ptr) - 1

    def tokens_of(self, prompt: int) -> NDArray[np.int32]:
        """The tokens of one prompt."""
        return self.tokens[self.prompt_ptr[prompt] : self.prompt_ptr[prompt + 1]]

    def first(self, n: int) -> PromptTable:
        """The first ``n`` prompts."""
        return self.slice(0, n)

    def slice(self, begin: int, end: int) -> PromptTable:
        """The prompts ``begin .. end``."""
        cut: dict[str, Any] = {
            name: getattr(self, name)[begin:end]
            for name in ("answer", "foil", "answer_position", "metric_clean", "metric_baseline")
        }
        for tokens, ptr in (
            ("tokens", "prompt_ptr"),
            ("counterfactual_tokens", "counterfactual_ptr"),
        ):
            pointer = getattr(self, ptr)
            if pointer is not None:
                span = pointer[begin : end + 1]
                cut[ptr] = span - span[0]
                cut[tokens] = getattr(self, tokens)[span[0] : span[-1]]
        return replace(self, **cut)

    def with_metrics(
        self, first: int, clean: NDArray[np.float64], baseline: NDArray[np.float64]
    ) -> PromptTable:
        """The same with the metrics of the prompts from ``first`` on replaced."""
        columns = {"metric_clean": clean, "metric_baseline": baseline}
        changed = {name: getattr(self, name).copy() for name in columns}
        for name, values in columns.items():
            changed[name][first : first + len(values)] = values
        return replace(self, **changed)

    @classmethod
    def concatenate(cls, tables: list[PromptTable]) -> PromptTable:
        """All prompts of several tables, in order.

        Raises:
            PieFastError: Some tables have counterfactual prompts and some have none.
        """
        joined: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(table, field.name) for table in tables]
            if any(value is None for value in values):
                if not all(value is None for value in values):
                    raise PieFastError(f"{field.name} is missing in some of the tables")
                joined[field.name] = None
            elif field.name.endswith("_ptr"):
                steps = [np.diff(value) for value in values]
                joined[field.name] = np.concatenate([[0], np.cumsum(np.concatenate(steps))])
            else:
                joined[field.name] = np.concatenate(values)
        return cls(**joined)

    def digest(self, n_prompts: int) -> PromptDigest:
        """Of all prompts, and of the metrics of the first ``n_prompts``."""
        digest = PromptDigest(self)
        digest.add(self, 0, n_prompts)
        return digest

    def save(self, path: Path) -> None:
        """Write ``prompts.safetensors``."""
        values = ((name, getattr(self, name)) for name in _DTYPES)
        write_safetensors(path, {name: value for name, value in values if value is not None})

    def write_metrics(self, path: Path, begin: int, end: int) -> None:
        """Put the metrics of the prompts ``begin .. end`` into a table that is on disk already.

        Nothing else of the file is touched, so this costs as little for the last prompts of many as
        for the first; rows of which the manifest does not know yet may be torn by a power cut.
        """
        with path.open("r+b") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name in ("metric_clean", "metric_baseline"):
                column: NDArray[np.float64] = getattr(self, name)
                file.seek(8 + length + header[name]["data_offsets"][0] + begin * column.itemsize)
                file.write(column[begin:end].tobytes())
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(cls, path: Path) -> PromptTable:
        """Read ``prompts.safetensors``.

        Raises:
            DumpError: The file is not what the format promises.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        # Bytes, not a map: a file that shrinks meanwhile is then an error and not a signal.
        check_regular(path)
        data = path.read_bytes()
        try:
            tensors = load(data)
        except (SafetensorError, TypeError, KeyError) as error:
            raise DumpError(f"{path}: header: {error}") from error
        for name, dtype in _DTYPES.items():
            if name not in tensors:
                if name.startswith("counterfactual"):
                    continue
                raise DumpError(f"{path}: {name}: is missing")
            if tensors[name].dtype != dtype:
                raise DumpError(
                    f"{path}: {name}: has dtype {tensors[name].dtype}, must be {dtype.__name__}"
                )
        try:
            return cls(**{name: tensors[name] for name in _DTYPES if name in tensors})
        except PieFastError as error:
            raise DumpError(f"{path}: {error}") from error

    def difference(self, other: PromptTable) -> str | None:
        """The name of the first column in which two tables differ, or None.

        Metrics may differ by 1e-4: they come out of a model, which another number of threads
        changes in the last bits.
        """
        for name in _DTYPES:
            mine, theirs = getattr(self, name), getattr(other, name)
            if (mine is None) != (theirs is None):
                return name
            if mine is None:
                continue
            if mine.shape != theirs.shape:
                return name
            close = np.isclose(mine, theirs, rtol=1e-4, atol=1e-4)
            if not (close if name.startswith("metric") else mine == theirs).all():
                return name
        return None


class PromptDigest:
    """A sha256 that grows with the metrics that become known.

    Args:
        table: Its prompts; their metrics are added by `add`.
    """

    def __init__(self, table: PromptTable) -> None:
        self._digest = hashlib.sha256()
        for name in _DTYPES:
            column = getattr(table, name)
            if column is not None and not name.startswith("metric"):
                self._digest.update(f"{name} {len(column)} ".encode())
                self._digest.update(column.data)

    def add(self, table: PromptTable, begin: int, end: int) -> None:
        """Metrics of the prompts ``begin .. end``, in pairs: where they are cut changes nothing."""
        pairs = np.stack([table.metric_clean[begin:end], table.metric_baseline[begin:end]], axis=1)
        self._digest.update(np.ascontiguousarray(pairs).data)

    def copy(self) -> PromptDigest:
        """One that grows on its own."""
        other = copy.copy(self)
        other._digest = self._digest.copy()
        return other

    @property
    def hex(self) -> str:
        """Of what was added so far."""
        return self._digest.hexdigest()


def _cast(name: str, value: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """``value`` as a one-dimensional array of ``dtype``, if that changes no number."""
    array = np.asarray(value)
    if array.ndim != 1:
        raise PieFastError(f"{name} has {array.ndim} axes, must have 1")
    if array.size and array.dtype.kind not in ("iu" if np.issubdtype(dtype, np.integer) else "iuf"):
        raise PieFastError(f"{name} has dtype {array.dtype}, must be {dtype.__name__}")
    if np.issubdtype(dtype, np.integer) and array.size and array.dtype != dtype:
        limits = np.iinfo(dtype)  # type: ignore[type-var]
        worst = max(array.min(), array.max(), key=abs)
        if array.min() < limits.min or array.max() > limits.max:
            raise PieFastError(f"{name} has {worst}, outside [{limits.min}, {limits.max}]")
    return np.ascontiguousarray(array.astype(dtype, copy=False))


def _check_ptr(name: str, ptr: NDArray[np.int64], end: int) -> None:
    if len(ptr) == 0 or ptr[0] != 0 or ptr[-1] != end:
        span = f"{ptr[0]} to {ptr[-1]}" if len(ptr) else "nowhere"
        raise PieFastError(f"{name} runs from {span}, must be 0 to {end}")
    steps = np.diff(ptr)
    if (steps < 0).any():
        i = int((steps < 0).argmax())
        raise PieFastError(f"{name} falls from {ptr[i]} to {ptr[i + 1]} at {i}")


def _check_least(name: str, values: NDArray[Any], least: int) -> None:
    if len(values) and values.min() < least:
        i = int(values.argmin())
        raise PieFastError(f"{name}[{i}] is {values[i]}, must be at least {least}")


def check_finite(name: str, values: NDArray[np.float64], first: int = 0) -> None:
    """Refuse NaN and infinity in a column whose first row here is number ``first``.

    Raises:
        PieFastError: With the column, the row and the value.
    """
    bad = ~np.isfinite(values)
    if bad.any():
        i = int(bad.argmax())
        raise PieFastError(f"{name}[{first + i}] is {values[i]}, must be finite")
