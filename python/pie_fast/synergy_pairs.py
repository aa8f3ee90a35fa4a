"""Sparse synergy matrices filled pair by pair, in any order and in any blocks.

A pair that belongs to the strongest ``per_row`` of all pairs of a row belongs to the strongest of
those met so far. So what is held is these, for each row, and one bit per pair for which were given:
``M * per_row`` numbers and ``M * M / 16`` bytes. A row is done when all its pairs were given; then
it keeps what :func:`pie_fast.fill_sparse_rows` keeps of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pie_fast.errors import PieFastError
from pie_fast.packed import n_pairs, places
from pie_fast.synergy_fill import checked_per_row, with_pairs
from pie_fast.synergy_given import pairs_as_kept

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pie_fast.csr import Triplets
    from pie_fast.synergy_matrix import SynergyMatrix


class SparsePairs:
    """Fills a sparse matrix pair by pair; :meth:`matrix` is the matrix so far.

    Pairs of rows that are not done are not in that matrix: after :meth:`SynergyMatrix.load` a new
    filler begins these rows again, and takes every pair except those of two rows that are done.

    Args:
        start: From :func:`pie_fast.empty_sparse`, ``load``, or another filler.
        per_row: How many pairs a row keeps by magnitude, ties to the smaller id; zeros never.

    Raises:
        PieFastError: A dense matrix; another ``per_row`` than before.
    """

    def __init__(self, start: SynergyMatrix, per_row: int | None = None) -> None:
        self._start = start
        self.per_row = checked_per_row(start, per_row)
        self._frozen = start.done
        m = len(start)
        self._given = np.zeros((n_pairs(m) + 7) // 8, dtype=np.uint8)
        #: how many pairs of a row were given
        self._count = np.zeros(m, dtype=np.int64)
        none = np.zeros(0, dtype=np.int64)
        #: (row, column, value) of the strongest of each row that is not frozen
        self._kept: Triplets = (none, none, np.zeros(0, dtype=np.float32))

    def add(self, pairs: ArrayLike, synergy: ArrayLike) -> None:
        """Some pairs more; nothing is taken when one of them is refused.

        Args:
            pairs: ``[n, 2]`` global ids, in any order.
            synergy: ``[n]``, signed. A clipped matrix clips it.

        Raises:
            PieFastError: Another shape, a feature that is not in the pool, a pair of a feature with
                itself, a number that is not finite, a pair that was given before.
        """
        first, second, new = pairs_as_kept(self._start, pairs, synergy)
        self._mark(first, second)
        rows, columns = np.concatenate([first, second]), np.concatenate([second, first])
        self._keep(rows, columns, np.concatenate([new, new]))
        np.add.at(self._count, rows, 1)

    def matrix(self) -> SynergyMatrix:
        """The rows that are done so far.

        Raises:
            PieFastError: A pair with another value than the matrix had at the start.
        """
        done = ~self._frozen & (self._count == len(self._start) - 1)
        rows, columns, values = self._kept
        whole = done[rows]
        kept = rows[whole], columns[whole], values[whole]
        return with_pairs(self._start, np.flatnonzero(done), kept, self.per_row)

    def _mark(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Set the bits of pairs, none of which may be set."""
        where = places(len(self._start), first, second)
        order = np.argsort(where, kind="stable")
        again = np.zeros(len(where), dtype=np.bool_)
        again[order[1:]] = np.diff(where[order]) == 0
        byte, bit = where >> 3, np.left_shift(1, where & 7).astype(np.uint8)
        again |= (self._given[byte] & bit) != 0
        again |= self._frozen[first] & self._frozen[second]
        if again.any():
            at = np.flatnonzero(again)[0]
            a, b = sorted((self._start.pool[first[at]], self._start.pool[second[at]]))
            raise PieFastError(f"the synergy of features {a} and {b} was given before")
        np.bitwise_or.at(self._given, byte, bit)

    def _keep(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float32]
    ) -> None:
        """Of these and what is held, the strongest of each row."""
        use = (values != 0) & ~self._frozen[rows]
        rows = np.concatenate([self._kept[0], rows[use]])
        columns = np.concatenate([self._kept[1], columns[use]])
        values = np.concatenate([self._kept[2], values[use]])
        order = np.lexsort((columns, -np.abs(values), rows))
        rows, columns, values = rows[order], columns[order], values[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = rank < self.per_row
        self._kept = rows[best], columns[best], values[best]
