"""Sparse symmetric matrices as ``(indptr, indices, values)``; columns ascend within a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pie_fast.errors import PieFastError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    #: ``[M + 1]`` int64, ``[nnz]`` int32, ``[nnz]`` float32
    Csr: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
    Triplets: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def triplets(matrix: Csr) -> Triplets:
    """Rows, columns and values, ordered by row, then column."""
    indptr, indices, values = matrix
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    columns = indices.astype(np.int64)
    order = np.lexsort((columns, rows))
    return rows[order], columns[order], values[order]


def from_triplets(
    n: int, rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float32]
) -> Csr:
    """The matrix of n rows with these entries, in any order, no place twice."""
    order = np.lexsort((columns, rows))
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    return indptr, columns[order].astype(np.int32), values[order]


def sub_rows(matrix: Csr, at: NDArray[np.int64]) -> Csr:
    """The entries among the distinct positions ``at``, renumbered by their order."""
    rows, columns, values = triplets(matrix)
    new = np.full(len(matrix[0]) - 1, -1, dtype=np.int64)
    new[at] = np.arange(len(at))
    inside = (new[rows] >= 0) & (new[columns] >= 0)
    return from_triplets(len(at), new[rows[inside]], new[columns[inside]], values[inside])


def union(one: Csr, other: Csr, ids: NDArray[np.int64]) -> Csr:
    """The entries of either.

    Raises:
        PieFastError: An entry with two values; ``ids`` name its features.
    """
    a, b = triplets(one), triplets(other)
    rows, columns = np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])
    values = np.concatenate([a[2], b[2]])
    order = np.lexsort((columns, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    again = np.zeros(len(rows), dtype=np.bool_)
    again[1:] = (np.diff(rows) == 0) & (np.diff(columns) == 0)
    clash = np.flatnonzero(again[1:] & (np.diff(values) != 0))
    if clash.size:
        at = clash[0]
        raise PieFastError(
            f"synergy of features {ids[rows[at]]} and {ids[columns[at]]} is {values[at]} "
            f"in one matrix and {values[at + 1]} in another"
        )
    return from_triplets(len(ids), rows[~again], columns[~again], values[~again])
