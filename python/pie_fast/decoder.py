"""Decoder rows, read from a checkpoint's own files without loading them, and how alike they are.

Feature f of layer l writes ``d[f, t]`` to every target layer ``t >= l``. The write vectors are
lined up by target layer, with zeros where a feature does not write, and redundancy is

    ``R[f, g] = sum_t w[t] <d[f, t], d[g, t]> / (|f| |g|)``, ``|f|^2 = sum_t w[t] |d[f, t]|^2``

so only targets that both write to add to the dot product. It is kept apart from synergy and
enters selection with a minus. No torch, and only the rows that are asked for are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast import _native
from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.whole import threads_of, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pie_fast.dump import FeatureDump, Progress


def decoder_rows(
    path: str | Path, tensor: str, ids: ArrayLike, *, threads: int | None = None
) -> NDArray[np.float32]:
    """Rows of a tensor of a safetensors file, read by pread; repeated ids are read once.

    Args:
        path: The file, e.g. ``W_dec_3.safetensors``.
        tensor: The tensor, e.g. ``W_dec_3`` of shape ``[n_features, n_layers - 3, d_model]``, in
            BF16, F16 or F32.
        ids: ``[n]`` row indices in any order.
        threads: How many; the result does not depend on it.

    Returns:
        ``[n, n_layers - l, d_model]`` float32, in the order of ``ids``.

    Raises:
        DumpError: The file or the tensor is not what it should be; names both.
        PieFastError: An id is not a row.
    """
    rows = np.ascontiguousarray(whole_numbers("ids", ids)).reshape(-1)
    return _native.decoder_rows(path, tensor, rows, threads=threads_of(threads))


def redundancy(
    clt: str | Path,
    ids: ArrayLike,
    *,
    n_layers: int,
    n_features: int,
    weights: ArrayLike | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Cosines of the write vectors of a pool.

    Args:
        clt: A folder in the circuit-tracer layout (``W_dec_{l}.safetensors``).
        ids: ``[M]`` global feature ids, ``layer * n_features + index``.
        n_layers: Layers of the CLT.
        n_features: Features per layer.
        weights: ``[n_layers]`` a weight per target layer, at least 0; all 1 by default.
        threads: How many; the result does not depend on it.
        progress: Told how many of how many target layers are done.

    Returns:
        ``[M, M]`` float32, symmetric, in ``[-1, 1]``, 1 on the diagonal; 0 for features that
        write nothing.

    Raises:
        CheckpointError: A decoder file that is needed is missing.
        DumpError: A decoder file is not what its format promises.
        PieFastError: Ids or weights out of range.
    """
    if n_features < 1:
        raise PieFastError(f"n_features is {n_features}, must be at least 1")
    ids = whole_numbers("ids", ids).reshape(-1)
    outside = ids[(ids < 0) | (ids >= n_layers * n_features)]
    if outside.size:
        raise PieFastError(f"ids has {outside[0]}, must be in [0, {n_layers * n_features})")
    layers, rows = np.divmod(ids, n_features)
    return _native.redundancy(
        _decoders(Path(clt), sorted({int(layer) for layer in layers})),
        n_layers,
        layers,
        rows,
        weights=None if weights is None else np.asarray(weights, float).tolist(),
        threads=threads_of(threads),
        progress=progress,
    )


def redundancy_of_pool(
    dump: FeatureDump,
    clt: str | Path,
    pool: int,
    *,
    rank_by: str = "mean_abs",
    weights: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """The ``pool`` best features of a dump, best first, their scores, and their redundancy.

    Raises:
        BudgetError: The dump has fewer active features.
    """
    ids, scores = dump.top_k(pool, rank_by, threads=threads)
    matrix = redundancy(
        clt,
        ids,
        n_layers=dump.n_layers,
        n_features=dump.n_features,
        weights=weights,
        threads=threads,
    )
    return ids, scores, matrix


def strongest_pairs(
    ids: NDArray[np.int64], matrix: NDArray[np.float32], n: int, n_features: int
) -> list[dict[str, Any]]:
    """The ``n`` pairs with the largest \\|cosine\\|, as plain JSON; ties to the smaller ids."""
    first, second = np.triu_indices(len(ids), 1)
    cosines = matrix[first, second]
    low, high = np.minimum(ids[first], ids[second]), np.maximum(ids[first], ids[second])
    best = np.lexsort((high, low, -np.abs(cosines)))[:n]
    return [
        {
            "first": _feature(int(low[i]), n_features),
            "second": _feature(int(high[i]), n_features),
            "cosine": float(cosines[i]),
        }
        for i in best
    ]


def _decoders(clt: Path, layers: list[int]) -> list[tuple[int, Any, str]]:
    found: list[tuple[int, Any, str]] = []
    for layer in layers:
        path = clt / f"W_dec_{layer}.safetensors"
        if not path.exists():
            raise CheckpointError(
                f"{path} does not exist: decoders are read from W_dec_LAYER files"
            )
        found.append((layer, path, f"W_dec_{layer}"))
    return found


def _feature(id_: int, n_features: int) -> dict[str, int]:
    return {"layer": id_ // n_features, "index": id_ % n_features}
