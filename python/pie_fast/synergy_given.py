"""Synergies that are handed to a matrix: checked, and as the matrix keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pie_fast.errors import DumpError, PieFastError
from pie_fast.whole import whole_numbers

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from pie_fast.csr import Triplets
    from pie_fast.synergy_matrix import SynergyMatrix


def row_as_kept(matrix: SynergyMatrix, feature: int, synergy: ArrayLike) -> Triplets:
    """All pairs of one feature: positions in the pool of both, and synergies as they are kept.

    Raises:
        PieFastError: Another length than the pool's, a feature that is not in it, a number that is
            not finite.
    """
    values = np.asarray(synergy, dtype=np.float64)
    if values.shape != (len(matrix),):
        raise PieFastError(f"synergy has shape {list(values.shape)}, must be [{len(matrix)}]")
    at = matrix.positions([feature])
    others = np.delete(np.arange(len(matrix)), at)
    return at.repeat(len(others)), others, as_kept(matrix, at, others, values[others])


def pairs_as_kept(matrix: SynergyMatrix, pairs: ArrayLike, synergy: ArrayLike) -> Triplets:
    """Pairs of ids ``[n, 2]`` and synergies ``[n]``, in the form of :func:`row_as_kept`.

    Raises:
        PieFastError: Another shape, a feature that is not in the pool, a pair of a feature with
            itself, a number that is not finite.
    """
    ids = whole_numbers("pairs", pairs).reshape(-1, 2)
    values = np.asarray(synergy, dtype=np.float64)
    if values.shape != (len(ids),):
        raise PieFastError(f"synergy has shape {list(values.shape)}, must be [{len(ids)}]")
    same = np.flatnonzero(ids[:, 0] == ids[:, 1])
    if same.size:
        raise PieFastError(f"feature {ids[same[0], 0]} has no synergy with itself")
    first, second = matrix.positions(ids.reshape(-1)).reshape(-1, 2).T
    return first, second, as_kept(matrix, first, second, values)


def as_kept(
    matrix: SynergyMatrix,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    synergy: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Synergies as the matrix keeps them: clipped where it is, float32, -0.0 as 0.0.

    Args:
        matrix: Whose form and pool count.
        first: Positions of one feature of each pair; both broadcast to the synergies.
        second: Of the other.
        synergy: Of the pairs, any shape.

    Raises:
        PieFastError: One that is not finite.
    """
    if matrix.form == "clipped":
        # Not np.maximum: NaN must stay.
        synergy = np.where(synergy < 0, 0, synergy)
    with np.errstate(over="ignore"):
        # 0.0 is added last: a small negative number too becomes -0.0 as float32.
        kept = synergy.astype(np.float32) + np.float32(0)
    bad = np.argwhere(~np.isfinite(kept))
    if bad.size:
        at = tuple(bad[0])
        a, b = (matrix.pool[np.broadcast_to(side, kept.shape)[at]] for side in (first, second))
        raise PieFastError(f"synergy of features {a} and {b} is {kept[at]}, must be finite")
    return kept


def per_row_in_file(path: str | PathLike[str], text: str | None) -> int | None:
    """How many pairs a row of a saved matrix keeps, from the text of the file's metadata.

    Raises:
        DumpError: Not a number of at least 0.
    """
    if text is None:
        return None
    try:
        per_row = int(text)
    except ValueError:
        per_row = -1
    if per_row < 0:
        raise DumpError(f"{path}: per_row: is {text!r}, must be a number from 0 on")
    return per_row
