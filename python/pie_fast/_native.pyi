"""Types of the native module."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, TypedDict, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ContextCollector",
    "DelphiCache",
    "Dump",
    "Fold",
    "__version__",
    "build_profile",
    "check_synergy",
    "decoder_rows",
    "delphi_tokens",
    "explain_selection",
    "greedy_select",
    "greedy_select_many",
    "improve_by_swaps",
    "kernels",
    "load_synergy",
    "redundancy",
    "rows_at",
    "synergy_clusters",
    "top_k",
    "top_k_per_layer",
    "top_synergies",
    "unpack_synergy",
]

__version__: str
build_profile: str
kernels: str

_Progress = Callable[[int, int], object]
_Floats = NDArray[np.float32] | NDArray[np.float64]
_Ints = NDArray[np.int32] | NDArray[np.int64]
_Columns = tuple[
    NDArray[np.int64],
    NDArray[np.uint32],
    NDArray[np.uint32],
    NDArray[np.float32],
    NDArray[np.float32] | None,
]
_Synergy = _Floats | tuple[NDArray[np.int64], _Ints, _Floats]

class _Limits(TypedDict):
    must_include: NDArray[np.int64]
    must_exclude: NDArray[np.int64]
    layers: NDArray[np.int64] | None
    max_per_layer: int

def top_k(
    scores: _Floats, k: int, mask: NDArray[np.bool_] | None, threads: int | None
) -> NDArray[np.int64]: ...
def top_k_per_layer(
    scores: _Floats, k: int, n_features: int, threads: int | None
) -> NDArray[np.int64]: ...
def check_synergy(synergy: _Synergy) -> None: ...
def greedy_select(
    scores: _Floats, synergy: _Synergy, k: int, bonus: str, limits: _Limits | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
def explain_selection(
    scores: _Floats, synergy: _Synergy, k: int, bonus: str, limits: _Limits | None = None
) -> list[tuple[int, float, float, float, tuple[int, float] | None]]: ...
def improve_by_swaps(
    scores: _Floats,
    synergy: _Synergy,
    ids: NDArray[np.int64],
    bonus: str,
    max_swaps: int,
    limits: _Limits | None = None,
) -> tuple[NDArray[np.int64], tuple[float, float], list[tuple[int, int]]]: ...
def greedy_select_many(
    scores: _Floats, synergy: _Synergy, k: int, bonus: str, threads: int | None
) -> NDArray[np.int64]: ...

@final
class Dump:
    """An opened and checked feature dump."""

    def __new__(
        cls, path: str | PathLike[str], *, prompts: tuple[int, int] | None = None
    ) -> Dump: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_features(self) -> int: ...
    @property
    def n_prompts(self) -> int: ...
    @property
    def n_active(self) -> int: ...
    @property
    def has_attribution(self) -> bool: ...
    def score(
        self,
        rank_by: str,
        *,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> NDArray[np.float64]: ...
    def top_k(
        self,
        k: int,
        rank_by: str,
        *,
        threads: int | None = None,
        layers: list[int] | None = None,
        features: NDArray[np.int64] | None = None,
        min_prompts: int | None = None,
        per_layer: bool = False,
        progress: _Progress | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
    def rank(
        self,
        k: int,
        scores: NDArray[np.float64],
        has_entry: NDArray[np.bool_],
        *,
        counts: NDArray[np.float64] | None = None,
        threads: int | None = None,
        layers: list[int] | None = None,
        features: NDArray[np.int64] | None = None,
        min_prompts: int | None = None,
        per_layer: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
    def block_sums(
        self, rank_by: str, block: int, *, threads: int | None = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.float64]]: ...
    def active_features(
        self,
        *,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> NDArray[np.int64]: ...
    def entries(self, first_prompt: int, n_prompts: int) -> _Columns: ...
    def entries_of(
        self, features: NDArray[np.int64], *, progress: _Progress | None = None
    ) -> _Columns: ...
    def verify(
        self,
        prompt_lengths: NDArray[np.int64] | None,
        *,
        progress: _Progress | None = None,
    ) -> None: ...
    def summary(
        self, *, progress: _Progress | None = None
    ) -> tuple[
        dict[int, int],
        int,
        int,
        dict[int, int],
        tuple[float, float] | None,
        int | None,
    ]: ...

@final
class Fold:
    """Blocks of prompts joined in order, for the features first .. end.

    After Ctrl-C in `add` a part of the block may be in it: begin anew.
    """

    def __new__(cls, rank_by: str, first: int, end: int) -> Fold: ...
    def add(self, ids: NDArray[np.uint32], sums: NDArray[np.float64]) -> None: ...
    def finish(self, n_prompts: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]: ...

def decoder_rows(
    path: str | PathLike[str],
    tensor: str,
    ids: NDArray[np.int64],
    *,
    row_axes: int | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]: ...
def rows_at(
    path: str | PathLike[str],
    name: str,
    dtype: str,
    shape: Sequence[int],
    offset: int,
    ids: NDArray[np.int64],
    *,
    threads: int | None = None,
) -> NDArray[np.float32]: ...
def redundancy(
    decoders: list[tuple[int, PathLike[str], str]],
    n_layers: int,
    layers: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    weights: list[float] | None = None,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> NDArray[np.float32]: ...

@final
class ContextCollector:
    """Contexts of a few features, collected while a corpus streams by, in bounded memory.

    The result depends on the sequences alone: not on how they came in batches, in which order, on
    how many threads, or from which of several collectors that were merged.

    Args:
        n_features: K, the number of features.
        n_top: Sequences kept of each feature for their strongest ``|activation|``.
        n_sample: Sequences it fires in that are kept, sampled uniformly.
        n_silent: Sequences it does not fire in whose numbers are kept, sampled uniformly.

    Raises:
        PieFastError: A number below 0, or more features than pairs of them fit in memory.
    """

    def __new__(
        cls, n_features: int, *, n_top: int = 20, n_sample: int = 200, n_silent: int = 200
    ) -> ContextCollector: ...
    def add(
        self,
        first: int,
        ptr: NDArray[np.int64],
        values: NDArray[np.float32],
        counted: NDArray[np.bool_],
        *,
        threads: int | None = None,
    ) -> None:
        """Collect from a batch of sequences; after an error nothing has changed.

        Args:
            first: Number of the first sequence; the others follow it.
            ptr: ``[n + 1]`` int64, where each sequence starts, from 0.
            values: ``[n_tokens, K]`` float32, C-contiguous activations, all of them finite.
            counted: ``[n_tokens]`` bool, the positions that have features; elsewhere an
                activation counts as 0.
            threads: How many; all of them where None.

        Raises:
            PieFastError: Lengths that do not fit, a ``ptr`` that descends, a value that is not
                finite, a sequence that was added before.
        """

    def merge(self, other: ContextCollector) -> None:
        """Take over what another collector has of other sequences.

        Raises:
            PieFastError: Another number of features, other limits, a sequence of both.
        """

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything, as plain arrays; equal collections have equal bytes.

        Returns:
            ``limits`` int64 [3] (n_top, n_sample, n_silent); ``counts`` int64 [2] (sequences,
            counted positions); ``seen`` int64 [n, 2] ranges of sequences; ``fires`` int64 [K]
            positions where each fires; ``coactive`` int64 [K, K] positions where both do;
            ``histogram`` int64 [K, 2040] positions by ``|activation|``, 8 bins an octave: bin b
            begins at the float32 with the bits ``b << 20``; ``peak_ptr`` int64 [K + 1] and of each
            sequence a feature fires in ``peak_sequence`` int64, ``peak_position`` int64,
            ``peak_value`` float32; ``kept_ptr`` int64 [K + 1] and of each kept sequence
            ``kept_sequence`` int64, ``kept_kind`` uint8 (1 top, 2 sampled, 4 sampled silent),
            ``kept_values_ptr`` int64 [n + 1] into ``kept_values`` float32, activations at all
            positions of a sequence it fires in.
        """

    @staticmethod
    def from_state(arrays: dict[str, NDArray[Any]]) -> ContextCollector:
        """The collector that a state was taken from.

        Raises:
            PieFastError: A state that no collector can have; names the array and the value.
        """

@final
class DelphiCache:
    """An opened Delphi latent cache: (path, layer, start, last latent) per file."""

    def __new__(cls, files: list[tuple[PathLike[str], int, int, int | None]]) -> DelphiCache: ...
    @property
    def n_sequences(self) -> int: ...
    @property
    def n_entries(self) -> int: ...
    def width(self) -> int: ...
    def entries(self, first: int, n: int, n_features: int) -> _Columns: ...

def delphi_tokens(path: str | PathLike[str]) -> tuple[NDArray[np.int64], int] | None: ...
def load_synergy(path: str | PathLike[str]) -> dict[str, Any]: ...
def unpack_synergy(packed: NDArray[np.float32], n: int) -> NDArray[np.float32]: ...
def top_synergies(
    joint: _Floats,
    single: NDArray[np.float64],
    per_row: int,
    clipped: bool,
    symmetric: bool,
    threads: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]: ...
def synergy_clusters(
    matrix: NDArray[np.float32] | tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]],
    threshold: float,
) -> NDArray[np.int64]: ...
