"""Types of the native module."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

__version__: str
build_profile: str

_Floats = NDArray[np.float32] | NDArray[np.float64]
_Ints = NDArray[np.int32] | NDArray[np.int64]
_Synergy = _Floats | tuple[NDArray[np.int64], _Ints, _Floats]

class _Limits(TypedDict):
    must_include: NDArray[np.int64]
    must_exclude: NDArray[np.int64]
    layers: NDArray[np.int64] | None
    max_per_layer: int

def top_k(
    scores: _Floats, k: int, mask: NDArray[np.bool_] | None, threads: int | None
) -> NDArray[np.int64]: ...
def check_synergy(synergy: _Synergy) -> None: ...
def greedy_select(
    scores: _Floats, synergy: _Synergy, k: int, bonus: str, limits: _Limits | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
def explain_selection(
    scores: _Floats, synergy: _Synergy, k: int, bonus: str, limits: _Limits | None = None
) -> list[tuple[int, float, float, float, tuple[int, float] | None]]: ...
def greedy_select_many(
    scores: _Floats, synergy: _Synergy, k: int, bonus: str, threads: int | None
) -> NDArray[np.int64]: ...
