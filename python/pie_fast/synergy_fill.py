"""Sparse synergy matrices filled by rows: ``M * per_row`` pairs are held, never ``M * M / 2``.

A row that is given whole keeps its ``per_row`` strongest pairs at once, since no other row changes
which these are; a pair that either of its rows keeps is in both. So what two fillers keep is what
one that is given the rows of both keeps, and with all rows it is what
:meth:`pie_fast.SynergyMatrix.sparsified` makes of the dense matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast import csr
from pie_fast.errors import PieFastError
from pie_fast.synergy_given import as_kept
from pie_fast.synergy_matrix import SynergyMatrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def empty_sparse(pool: ArrayLike, **identity: Any) -> SynergyMatrix:
    """A sparse matrix none of whose rows are done; :func:`fill_sparse_rows` fills it.

    Args:
        pool: ``[M]`` ids, ascending.
        **identity: direction, estimator, form, n_prompts, redundancy.

    Raises:
        PieFastError: As :class:`pie_fast.SynergyMatrix`.
    """
    matrix = SynergyMatrix(pool, **identity)
    none = np.zeros(0, dtype=np.int64)
    rows = csr.from_triplets(len(matrix), none, none, np.zeros(0, dtype=np.float32))
    matrix._make_sparse(rows, np.zeros(len(matrix), dtype=np.bool_))
    return matrix


def fill_sparse_rows(
    matrix: SynergyMatrix,
    features: ArrayLike,
    synergies: ArrayLike,
    per_row: int | None = None,
) -> SynergyMatrix:
    """A new matrix with some rows more; give many at once, each call copies the matrix.

    Save it after each call to go on later: ``done`` tells which rows are there. Matrices filled
    apart with the same ``per_row`` are put together by ``merge``.

    Args:
        matrix: From :func:`empty_sparse`, this function, ``merge`` or ``load``.
        features: ``[n]`` distinct global ids.
        synergies: ``[n, M]``, signed; a feature's own place is ignored. A clipped matrix clips it.
        per_row: How many pairs a row keeps by magnitude, ties to the smaller id; zeros never. It
            is saved with the matrix and needs to be given once only.

    Raises:
        PieFastError: A dense matrix, another shape, a feature that is there twice or not in the
            pool, a number that is not finite, a pair that is kept with another value, another
            ``per_row`` than before.
    """
    per_row = checked_per_row(matrix, per_row)
    at = matrix.positions(np.asarray(features, dtype=np.int64).reshape(-1))
    if len(np.unique(at)) != len(at):
        raise PieFastError("a feature is there twice, features must be distinct")
    given = np.array(synergies, dtype=np.float64)
    if given.shape != (len(at), len(matrix)):
        want = [len(at), len(matrix)]
        raise PieFastError(f"synergies has shape {list(given.shape)}, must be {want}")
    given[np.arange(len(at)), at] = 0
    values = as_kept(matrix, at[:, None], np.arange(len(matrix)), given)
    ranked = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :per_row]
    kept = np.take_along_axis(values, ranked, axis=1)
    where, rank = np.nonzero(kept)
    return with_pairs(matrix, at, (at[where], ranked[where, rank], kept[where, rank]), per_row)


def checked_per_row(matrix: SynergyMatrix, per_row: int | None) -> int:
    """How many pairs a row of the sparse matrix keeps: what is asked for, or what it was before.

    Raises:
        PieFastError: A dense matrix; no number, one below 0, another one than before.
    """
    if not matrix.is_sparse:
        raise PieFastError("the matrix is dense, fill_row and fill_pairs fill it")
    if per_row is None:
        if matrix.per_row is None:
            raise PieFastError("per_row is not given, and the matrix has none")
        return matrix.per_row
    if per_row < 0:
        raise PieFastError(f"per_row is {per_row}, must be at least 0")
    if matrix.per_row not in (None, per_row):
        raise PieFastError(f"per_row is {per_row}, the matrix keeps {matrix.per_row}")
    return per_row


def with_pairs(
    matrix: SynergyMatrix, at: NDArray[np.int64], kept: csr.Triplets, per_row: int
) -> SynergyMatrix:
    """The matrix with pairs of the rows ``at``, which then are done, in both directions."""
    n, pool = len(matrix), matrix.pool
    rows, columns, values = kept
    here = csr.from_triplets(n, rows, columns, values)
    both = csr.union(here, csr.from_triplets(n, columns, rows, values), pool)
    assert matrix._csr is not None  # checked_per_row
    out, done = matrix._copy(), matrix.done
    done[at] = True
    out._make_sparse(csr.union(matrix._csr, both, pool), done, per_row)
    return out
