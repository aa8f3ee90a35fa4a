"""Whole numbers that callers give, and arrays of them: a cast would cut or turn them negative."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.errors import BudgetError, PieFastError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def whole_numbers(name: str, given: ArrayLike) -> NDArray[np.int64]:
    """An array as int64, no number changed; an empty one may have any dtype.

    Args:
        name: Of the argument, for errors.
        given: Any shape.

    Raises:
        TypeError: It holds something else than whole numbers.
        PieFastError: One is 2^63 or more.
    """
    found = np.asarray(given)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {found.dtype}, must be whole numbers")
    if found.size and found.dtype == np.uint64 and found.max() >= 1 << 63:
        raise PieFastError(f"{name} has {found.max()}, must be less than 2^63")
    return found.astype(np.int64)


def whole_number(name: str, given: Any) -> int:
    """A number of things, or which of them.

    Args:
        name: Of the argument, for errors.
        given: An int, or what ``operator.index`` makes one of.

    Raises:
        TypeError: It is no whole number.
        BudgetError: ``k`` is negative, or 2^63 or more.
        PieFastError: Another argument is.
    """
    number = _index(name, given)
    if not 0 <= number < 1 << 63:
        valid = "at least 0" if number < 0 else "less than 2^63"
        kind = BudgetError if name == "k" else PieFastError
        raise kind(f"{name} is {number}, must be {valid}")
    return number


def threads_of(given: int | None) -> int | None:
    """How many threads are wanted.

    Raises:
        TypeError: It is no whole number.
        PieFastError: It is outside [1, 1024].
    """
    if given is None:
        return None
    number = _index("threads", given)
    if not 1 <= number <= 1024:
        raise PieFastError(f"threads is {number}, must be in [1, 1024]")
    return number


def _index(name: str, given: Any) -> int:
    try:
        return operator.index(given)
    except TypeError:
        raise TypeError(f"{name} is {given!r}, must be a whole number") from None
