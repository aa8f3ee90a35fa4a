"""The upper triangle of a symmetric matrix, row by row: (0, 1), (0, 2) .. (0, m - 1), (1, 2) .."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def n_pairs(m: int) -> int:
    """How many pairs m candidates have."""
    return m * (m - 1) // 2


def row_starts(m: int) -> NDArray[np.int64]:
    """``[m]`` places of the pairs (i, i + 1); the last row has none and begins at the end."""
    row = np.arange(m)
    return row * (2 * m - row - 1) // 2


def row_views(packed: NDArray[Any], m: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Each row i and a view of its pairs (i, i + 1) .. (i, m - 1)."""
    for row, start in enumerate(row_starts(m).tolist()):
        yield row, packed[start : start + m - row - 1]


def places(m: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where pairs of distinct positions are, in whichever order they are given."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    return row_starts(m)[low] + high - low - 1


def pairs(m: int, where: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions (first < second) of pairs: the inverse of :func:`places`."""
    starts = row_starts(m)
    first = np.searchsorted(starts, where, side="right").astype(np.int64) - 1
    return first, where - starts[first] + first + 1
