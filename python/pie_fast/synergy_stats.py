"""What synergies are made of and what they look like together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from pie_fast import _native
from pie_fast.errors import PieFastError
from pie_fast.select import top_k
from pie_fast.whole import threads_of, whole_number, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pie_fast.csr import Csr

    Form: TypeAlias = Literal["signed", "clipped"]


class SynergyStats(NamedTuple):
    """Synergies in a few numbers.

    Attributes:
        n_pairs: Pairs of the pool.
        n_known: Pairs whose synergy is known.
        n_positive: Known pairs above 0.
        n_negative: Known pairs below 0.
        share_positive: ``n_positive / n_known``, 0 when none is known.
        mean: Mean over the known pairs, 0 when none is known.
        strongest: The pairs of largest magnitude as ``(id, id, synergy)``, best first.
    """

    n_pairs: int
    n_known: int
    n_positive: int
    n_negative: int
    share_positive: float
    mean: float
    strongest: list[tuple[int, int, float]]


def pair_synergy(
    joint: ArrayLike, first: ArrayLike, second: ArrayLike, *, form: Form = "signed"
) -> NDArray[np.float64]:
    """``(joint - first) - second`` in float64, with ``form="clipped"`` no less than 0.

    Args:
        joint: Importances of pairs, any shape.
        first: Importances of the first of each pair alone, a shape that broadcasts to it.
        second: Of the second.
        form: ``"signed"`` or ``"clipped"``.
    """
    value = np.asarray(joint, np.float64) - np.asarray(first, np.float64)
    value = np.asarray(value - np.asarray(second, np.float64))
    return value if one_of("form", form, "signed", "clipped") == "signed" else np.maximum(value, 0)


def top_synergies(
    joint: NDArray[Any],
    single: NDArray[np.float64],
    per_row: int,
    *,
    form: Form = "signed",
    symmetric: bool = True,
    threads: int | None = None,
) -> Csr:
    """The strongest synergies of every row, straight from importances.

    Args:
        joint: ``[M (M - 1) / 2]`` float32 or float64, importances of the pairs (0, 1), (0, 2) ..
            (0, M - 1), (1, 2) ..
        single: ``[M]`` float64, importances of single features.
        per_row: How many of a row, by magnitude, ties to the smaller column; zeros never.
        form: ``"signed"`` or ``"clipped"``.
        symmetric: Keep a pair that is among the strongest of either of its rows in both, as
            selection needs it; rows may then have more than ``per_row``.
        threads: At most so many. The answer does not depend on it.

    Returns:
        ``(indptr [M + 1] int64, indices [nnz] int32, values [nnz] float32)``, columns ascending.

    Raises:
        PieFastError: Lengths that do not fit; a number that is not finite.
        TypeError: Another dtype.
    """
    clipped = one_of("form", form, "signed", "clipped") == "clipped"
    kept, cores = whole_number("per_row", per_row), threads_of(threads)
    return _native.top_synergies(joint, single, kept, clipped, symmetric, cores)


def synergy_stats(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    values: NDArray[np.float32],
    pool_size: int,
    n_strongest: int,
) -> SynergyStats:
    """Sum up known pairs ``(first, second, value)``, each given once and in order of ids."""
    n, positive = len(values), int((values > 0).sum())
    best = top_k(np.abs(values), min(n_strongest, n))
    return SynergyStats(
        n_pairs=pool_size * (pool_size - 1) // 2,
        n_known=n,
        n_positive=positive,
        n_negative=int((values < 0).sum()),
        share_positive=positive / n if n else 0.0,
        mean=float(values.mean(dtype=np.float64)) if n else 0.0,
        strongest=list(
            zip(first[best].tolist(), second[best].tolist(), values[best].tolist(), strict=True)
        ),
    )


def groups(pool: NDArray[np.int64], labels: NDArray[np.int64]) -> list[list[int]]:
    """Features with one label, larger groups first; features alone are left out."""
    found = [pool[labels == label].tolist() for label in np.unique(labels)]
    return sorted((group for group in found if len(group) > 1), key=lambda g: (-len(g), g))


def one_of(name: str, given: str, *valid: str) -> str:
    """``given``, if it is one of the valid words.

    Raises:
        PieFastError: It is not.
    """
    if given not in valid:
        raise PieFastError(f"{name} is {given!r}, must be {' or '.join(map(repr, valid))}")
    return given


def checked_pool(given: ArrayLike) -> NDArray[np.int64]:
    """Ids as int64, ascending, each once, of 32 bits.

    Raises:
        PieFastError: They are not.
    """
    pool = whole_numbers("pool", given).reshape(-1).copy()
    if (np.diff(pool) <= 0).any():
        raise PieFastError("pool must ascend, each id once")
    if pool.size and (pool[0] < 0 or pool[-1] >= 1 << 32):
        raise PieFastError(f"pool goes from {pool[0]} to {pool[-1]}, must be in 0..2^32")
    return pool


def checked_square(name: str, values: NDArray[np.float32], m: int) -> NDArray[np.float32]:
    """A matrix ``[m, m]`` float32, finite and symmetric.

    Raises:
        PieFastError: It is not.
    """
    given = np.ascontiguousarray(values)
    if given.dtype != np.float32 or given.shape != (m, m):
        raise PieFastError(
            f"{name} is {given.dtype} {list(given.shape)}, must be float32 [{m}, {m}]"
        )
    _native.check_synergy(given)
    return given
