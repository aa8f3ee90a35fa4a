"""Arrays of whole numbers that callers give: ids, which a cast would cut or turn negative."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pie_fast.errors import PieFastError

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
