"""The numpy twin of ``pie_fast._native.ContextCollector``, with no cleverness.

The same state, byte for byte; a broken state is not looked for. The oracle of the tests.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.errors import PieFastError
from pie_fast.twin import check_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_BINS = 2040
TOP, SAMPLE, SILENT = 1, 2, 4
_MASK = (1 << 64) - 1


class ContextCollector:
    """Contexts of a few features, collected while a corpus streams by, in bounded memory."""

    def __init__(
        self, n_features: int, *, n_top: int = 20, n_sample: int = 200, n_silent: int = 200
    ) -> None:
        names = ("n_top", "n_sample", "n_silent", "n_features")
        for name, n in zip(names, (n_top, n_sample, n_silent, n_features), strict=True):
            if n < 0:
                raise PieFastError(f"{name} is {n}, must be at least 0")
        self.limits = (n_top, n_sample, n_silent)
        self.sequences: set[int] = set()
        self.counted = 0
        self.coactive = np.zeros((n_features, n_features), dtype=np.int64)
        self.histogram = np.zeros((n_features, N_BINS), dtype=np.int64)
        self.peaks: list[dict[int, tuple[int, np.float32]]] = [{} for _ in range(n_features)]
        self.values: list[dict[int, NDArray[np.float32]]] = [{} for _ in range(n_features)]
        self.quiet: list[set[int]] = [set() for _ in range(n_features)]

    def add(
        self,
        first: int,
        ptr: NDArray[np.int64],
        values: NDArray[np.float32],
        counted: NDArray[np.bool_],
        *,
        threads: int | None = None,
    ) -> None:
        """Collect from a batch of sequences; after an error nothing has changed."""
        k = len(self.peaks)
        _check(first, ptr, values, counted, k, threads)
        self._check_new(range(first, first + len(ptr) - 1))
        live = np.where(counted[:, None] & (values != 0), values, np.float32(0))
        fires = (live != 0).astype(np.int64)
        self.counted += int(counted.sum())
        self.coactive += fires.T @ fires
        for i in range(k):
            bits = np.abs(live[live[:, i] != 0, i]).view(np.uint32)
            self.histogram[i] += np.bincount(bits >> 20, minlength=N_BINS)
            for n, (begin, end) in enumerate(pairwise(ptr)):
                one = live[begin:end, i]
                if (one == 0).all():
                    self.quiet[i].add(first + n)
                    continue
                at = int(np.abs(one).argmax())
                self.peaks[i][first + n] = (at, one[at])
                self.values[i][first + n] = one.copy()
        self.sequences.update(range(first, first + len(ptr) - 1))
        self._forget()

    def merge(self, other: ContextCollector) -> None:
        """Take over what another collector has of other sequences."""
        k, theirs = len(self.peaks), len(other.peaks)
        if theirs != k:
            raise PieFastError(f"the other collector has {theirs} features, must have {k}")
        if other.limits != self.limits:
            n_top, n_sample, n_silent = other.limits
            raise PieFastError(
                f"the other collector has n_top {n_top}, n_sample {n_sample} and n_silent "
                f"{n_silent}, must have {self.limits[0]}, {self.limits[1]} and {self.limits[2]}"
            )
        self._check_new(other.sequences)
        self.sequences |= other.sequences
        self.counted += other.counted
        self.coactive += other.coactive
        self.histogram += other.histogram
        for i in range(k):
            self.peaks[i].update(other.peaks[i])
            self.values[i].update(other.values[i])
            self.quiet[i] |= other.quiet[i]
        self._forget()

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything, as plain arrays; equal collections have equal bytes."""
        ordered = sorted(self.sequences)
        starts = [s for s in ordered if s - 1 not in self.sequences]
        ends = [s + 1 for s in ordered if s + 1 not in self.sequences]
        peaks = [sorted((s, *peak) for s, peak in one.items()) for one in self.peaks]
        peak = [row for one in peaks for row in one]
        kept = [sorted(self._kinds(i).items()) for i in range(len(self.peaks))]
        none = np.zeros(0, dtype=np.float32)
        values = [self.values[i].get(s, none) for i, one in enumerate(kept) for s, _ in one]
        return {
            "limits": np.array(self.limits, dtype=np.int64),
            "counts": np.array([len(self.sequences), self.counted], dtype=np.int64),
            "seen": np.array([starts, ends], dtype=np.int64).T.copy(),
            "fires": np.diag(self.coactive).copy(),
            "coactive": self.coactive.copy(),
            "histogram": self.histogram.copy(),
            "peak_ptr": _pointers(map(len, peaks)),
            "peak_sequence": np.array([sequence for sequence, _, _ in peak], dtype=np.int64),
            "peak_position": np.array([position for _, position, _ in peak], dtype=np.int64),
            "peak_value": np.array([value for _, _, value in peak], dtype=np.float32),
            "kept_ptr": _pointers(map(len, kept)),
            "kept_sequence": np.array([s for one in kept for s, _ in one], dtype=np.int64),
            "kept_kind": np.array([kind for one in kept for _, kind in one], dtype=np.uint8),
            "kept_values_ptr": _pointers(map(len, values)),
            "kept_values": np.concatenate([none, *values]),
        }

    @staticmethod
    def from_state(arrays: dict[str, NDArray[Any]]) -> ContextCollector:
        """The collector that a state was taken from."""
        n_top, n_sample, n_silent = arrays["limits"].tolist()
        k = len(arrays["fires"])
        made = ContextCollector(k, n_top=n_top, n_sample=n_sample, n_silent=n_silent)
        made.counted = int(arrays["counts"][1])
        for start, end in arrays["seen"].tolist():
            made.sequences.update(range(start, end))
        made.coactive, made.histogram = arrays["coactive"].copy(), arrays["histogram"].copy()
        for i in range(k):
            for at in range(*arrays["peak_ptr"][i : i + 2]):
                peak = int(arrays["peak_position"][at]), arrays["peak_value"][at]
                made.peaks[i][int(arrays["peak_sequence"][at])] = peak
            for at in range(*arrays["kept_ptr"][i : i + 2]):
                sequence = int(arrays["kept_sequence"][at])
                begin, end = arrays["kept_values_ptr"][at : at + 2]
                if arrays["kept_kind"][at] == SILENT:
                    made.quiet[i].add(sequence)
                else:
                    made.values[i][sequence] = arrays["kept_values"][begin:end].copy()
        return made

    def _check_new(self, sequences: Any) -> None:
        both = self.sequences.intersection(sequences)
        if both:
            raise PieFastError(f"sequence {min(both)} was added before")

    def _kinds(self, i: int) -> dict[int, int]:
        """The sequences that are kept of one feature, and why."""
        peaks, (n_top, n_sample, n_silent) = self.peaks[i], self.limits
        kinds: dict[int, int] = {}
        for kind, sequences in (
            (TOP, sorted(peaks, key=lambda s: (-abs(peaks[s][1]), s))[:n_top]),
            (SAMPLE, sorted(peaks, key=splitmix64)[:n_sample]),
            (SILENT, sorted(self.quiet[i], key=splitmix64)[:n_silent]),
        ):
            for sequence in sequences:
                kinds[sequence] = kinds.get(sequence, 0) | kind
        return kinds

    def _forget(self) -> None:
        """Drop what is not kept any more."""
        for i in range(len(self.peaks)):
            kinds = self._kinds(i)
            self.values[i] = {s: v for s, v in self.values[i].items() if s in kinds}
            self.quiet[i] = {s for s in self.quiet[i] if s in kinds}


def splitmix64(sequence: int) -> int:
    """The hash that samples go by."""
    x = (sequence + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _pointers(lengths: Any) -> NDArray[np.int64]:
    return np.cumsum([0, *lengths]).astype(np.int64)


def _check(
    first: int,
    ptr: NDArray[np.int64],
    values: NDArray[np.float32],
    counted: NDArray[np.bool_],
    k: int,
    threads: int | None,
) -> None:
    rows, columns = values.shape
    if len(counted) != rows:
        raise PieFastError(f"counted has length {len(counted)}, must be the {rows} rows of values")
    if not len(ptr):
        raise PieFastError("ptr is empty, must have length n + 1")
    if ptr[0] != 0:
        raise PieFastError(f"ptr[0] is {ptr[0]}, must be 0")
    for i in range(1, len(ptr)):
        if ptr[i] < ptr[i - 1]:
            raise PieFastError(f"ptr[{i}] is {ptr[i]}, must be at least {ptr[i - 1]}")
    if ptr[-1] != rows:
        raise PieFastError(f"ptr ends at {ptr[-1]}, must end at the {rows} positions")
    last = 2**63 - len(ptr)
    if not 0 <= first <= last:
        raise PieFastError(f"first is {first}, must be in 0..={last}")
    if columns != k:
        raise PieFastError(f"values have {columns} columns, must be the {k} features")
    check_threads(threads)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        value = values[row, column]
        shown = "NaN" if np.isnan(value) else f"{value}"
        raise PieFastError(f"values[{row}, {column}] is {shown}, must be finite")
