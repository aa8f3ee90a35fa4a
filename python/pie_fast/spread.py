"""Scores and rankings of a dump whose blocks are added up by the workers of an engine.

A score adds up prompts in blocks of 256 and then the blocks, in order. Workers sum runs of blocks,
each block by itself; here the blocks are added in order. So the scores have the bytes of
`FeatureDump.score`, for any number of workers and whatever order they finish in. What travels is 12
bytes for each feature that a block has. The dump must lie where every worker can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pie_fast import _native
from pie_fast.dump import FeatureDump, open_dump
from pie_fast.dump_writer import BLOCK

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pie_fast.engine import Engine
    from pie_fast.progress import Advance

    Sums = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float64]]

#: blocks that a worker sums at once: some 4 million entries
RUN = 8


def spread_score(
    dump: FeatureDump,
    rank_by: str = "mean_abs",
    *,
    engine: Engine,
    progress: Advance | None = None,
) -> NDArray[np.float64]:
    """`FeatureDump.score`, by the workers of an engine.

    Args:
        dump: At a path that the workers see too.
        rank_by: As there.
        engine: Whose workers read the dump, each with one thread.
        progress: Called with the prompts done and all of them.

    Returns:
        `[n_layers * n_features]` float64, the same bytes as there.

    Raises:
        PieFastError: As there.
        DumpError: As there; of several bad shards the first is named. The dump that workers find
            at the path is not this one.
        WorkerError: Workers were lost again and again.
    """
    return _folded(dump, rank_by, engine, progress).score(dump.n_prompts)


def spread_top_k(
    dump: FeatureDump,
    k: int,
    rank_by: str = "mean_abs",
    *,
    engine: Engine,
    layers: Sequence[int] | None = None,
    features: ArrayLike | None = None,
    min_prompts: int | None = None,
    per_layer: bool = False,
    progress: Advance | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`FeatureDump.top_k`, by the workers of an engine; see `spread_score`.

    Raises:
        BudgetError: As there.
    """
    counts = None if min_prompts is None else _folded(dump, "count", engine, progress)
    return dump._native.top_k_of(
        _folded(dump, rank_by, engine, progress),
        counts,
        k,
        layers=None if layers is None else list(layers),
        features=None if features is None else np.asarray(features, dtype=np.int64).reshape(-1),
        min_prompts=min_prompts,
        per_layer=per_layer,
    )


def _folded(
    dump: FeatureDump, rank_by: str, engine: Engine, progress: Advance | None
) -> _native.BlockFold:
    n_blocks = -(-dump.n_prompts // BLOCK)
    fold = _native.BlockFold(dump.n_layers * dump.n_features, rank_by)
    # A run at least, so that what no dump can be ranked by is refused of an empty one too.
    runs = [(first, min(RUN, n_blocks - first)) for first in range(0, max(n_blocks, 1), RUN)]
    with engine.workers(partial(_same_dump, dump.path.resolve(), dump.manifest["shards"])) as some:
        for (first, n), sums in zip(runs, some.map(partial(_sums, rank_by), runs), strict=True):
            fold.add(*sums)
            if progress is not None:
                progress(min((first + n) * BLOCK, dump.n_prompts), dump.n_prompts)
    return fold


def _same_dump(path: Path, shards: list[dict[str, object]]) -> FeatureDump:
    """The dump as a worker sees it."""
    from pie_fast.errors import DumpError

    dump = open_dump(path)
    if dump.manifest["shards"] != shards:
        raise DumpError(f"{path}: shards: are not those that were asked for, as a worker sees them")
    return dump


def _sums(rank_by: str, dump: FeatureDump, run: tuple[int, int]) -> Sums:
    return dump._native.block_sums(rank_by, *run, threads=1)
