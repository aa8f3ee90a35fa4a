"""Types of the native module."""

from collections.abc import Callable
from os import PathLike
from typing import final

import numpy as np
from numpy.typing import NDArray

__version__: str
build_profile: str

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
        progress: Callable[[int, int], object] | None = None,
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
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
    def active_features(
        self,
        *,
        threads: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> NDArray[np.int64]: ...
    def entries(
        self, first_prompt: int, n_prompts: int
    ) -> tuple[
        NDArray[np.int64],
        NDArray[np.uint32],
        NDArray[np.uint32],
        NDArray[np.float32],
        NDArray[np.float32] | None,
    ]: ...
    def entries_of(
        self,
        features: NDArray[np.int64],
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[
        NDArray[np.int64],
        NDArray[np.uint32],
        NDArray[np.uint32],
        NDArray[np.float32],
        NDArray[np.float32] | None,
    ]: ...
    def verify(
        self,
        prompt_lengths: NDArray[np.int64] | None,
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> None: ...
    def summary(
        self, *, progress: Callable[[int, int], object] | None = None
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
    threads: int | None = None,
) -> NDArray[np.float32]: ...
