"""Types of the native module."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, TypedDict, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DelphiCache",
    "Dump",
    "__version__",
    "build_profile",
    "check_synergy",
    "decoder_rows",
    "delphi_tokens",
    "explain_selection",
    "greedy_select",
    "greedy_select_many",
    "improve_by_swaps",
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

    def __new__(cls, path: str | PathLike[str]) -> Dump: ...
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
