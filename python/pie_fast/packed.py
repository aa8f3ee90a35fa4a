"""The upper triangle of a symmetric matrix, row by row: (0, 1), (0, 2) .. (0, m - 1), (1, 2) .."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast import _native

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Ids = NDArray[np.int64]


class PackedPairs:
    """Values of pairs, and which of them are known: half the memory of a full matrix.

    Attributes:
        m: How many candidates.
        values: ``[m (m - 1) / 2]`` float32, 0 where not known.
        known: ``[m (m - 1) / 2]`` bool.
    """

    def __init__(self, m: int) -> None:
        self.m = m
        self.values: NDArray[np.float32] = np.zeros(n_pairs(m), dtype=np.float32)
        self.known: NDArray[np.bool_] = np.zeros(n_pairs(m), dtype=np.bool_)

    def copy(self) -> PackedPairs:
        """Another one with the same content."""
        out = PackedPairs(self.m)
        out.values, out.known = self.values.copy(), self.known.copy()
        return out

    def rows(self, packed: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Each row i and a view of its pairs (i, i + 1) .. (i, m - 1)."""
        for row, start in enumerate(row_starts(self.m).tolist()):
            yield row, packed[start : start + self.m - row - 1]

    def done(self) -> NDArray[np.bool_]:
        """``[m]``: whether all pairs of a candidate are known."""
        missing = np.zeros(self.m, dtype=np.bool_)
        for row, known in self.rows(self.known):
            missing[row] |= not known.all()
            missing[row + 1 :] |= ~known
        return ~missing

    def full(self) -> NDArray[np.float32]:
        """``[m, m]``, the diagonal 0."""
        return _native.unpack_synergy(self.values, self.m)

    def pairs_known(self) -> tuple[Ids, Ids, NDArray[np.float32]]:
        """Every known pair once, ``first < second``, in order, with its value."""
        where = np.flatnonzero(self.known)
        return *pairs(self.m, where), self.values[where]

    def fill(self, first: Ids, second: Ids, new: NDArray[np.float32]) -> int | None:
        """Make pairs known; nothing is changed where one is known with another value.

        Returns:
            The place in the arguments of such a pair, or None.
        """
        where = places(self.m, first, second)
        before = self.known[where] & (self.values[where] != new)
        # A pair given twice must agree with itself too.
        order = np.argsort(where, kind="stable")
        twice = (np.diff(where[order]) == 0) & (np.diff(new[order]) != 0)
        clash = np.concatenate([np.flatnonzero(before), order[1:][twice]])
        if clash.size:
            return int(clash[0])
        self.values[where], self.known[where] = new, True
        return None

    def fill_all(self, full: NDArray[np.float32]) -> None:
        """Make all pairs known."""
        for row, pairs_ in self.rows(self.values):
            # 0.0 is added so that -0.0 and 0.0 are one value.
            pairs_[:] = full[row, row + 1 :] + np.float32(0)
        self.known[:] = True

    def forget_unless(self, done: NDArray[np.bool_], bits: NDArray[np.uint8] | None) -> None:
        """Know only the pairs that have a bit, or without bits those with a row that is done."""
        if bits is None:
            for row, known in self.rows(self.known):
                known[:] = done[row] | done[row + 1 :]
        else:
            unpacked = np.unpackbits(bits, bitorder="little", count=len(self.known))
            self.known = unpacked.astype(np.bool_)
        self.values[~self.known] = 0

    def bits(self) -> NDArray[np.uint8] | None:
        """A bit for each known pair, or None where the done rows tell it all."""
        told = n_pairs(self.m) - n_pairs(self.m - int(self.done().sum()))
        if self.known.sum() == told:
            return None
        return np.packbits(self.known, bitorder="little")


def n_pairs(m: int) -> int:
    """How many pairs m candidates have."""
    return m * (m - 1) // 2


def row_starts(m: int) -> Ids:
    """``[m]`` places of the pairs (i, i + 1); the last row has none and begins at the end."""
    row = np.arange(m)
    return row * (2 * m - row - 1) // 2


def places(m: int, first: Ids, second: Ids) -> Ids:
    """Where pairs of distinct positions are, in whichever order they are given."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    return row_starts(m)[low] + high - low - 1


def pairs(m: int, where: Ids) -> tuple[Ids, Ids]:
    """The positions (first < second) of pairs: the inverse of :func:`places`."""
    starts = row_starts(m)
    first = np.searchsorted(starts, where, side="right").astype(np.int64) - 1
    return first, where - starts[first] + first + 1
