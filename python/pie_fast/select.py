"""Selection of features: exact top-k, and greedy selection by score and synergy.

The greedy rule: while fewer than k are selected, take the remaining f with the largest ::

    score[f] + (sum over selected s, in the order selected, of synergy[f, s]) / max(n_selected, 1)

Ties go to the smaller id. ``bonus="sum"`` leaves the division out. Sums are float64 whatever the
dtypes. With ``backend="native"`` (Rust) and ``"twin"`` (numpy) the answers are the same bits.

What is accepted: arrays of exactly the dtypes named (a list of floats counts as float64; anything
else is a ``TypeError``, never a silent conversion). Arrays that are C-contiguous are read in place,
others are copied first.

When the synergy matrix is looked at: a selection reads k rows, a check of every number (finite, in
range, symmetric) reads them all, which costs more than the selection. So the rows that a selection
reads are checked always, and the whole matrix is checked when its array *object* is seen for the
first time, and every time if it holds no more than 65,536 numbers. After changing a large matrix in
place pass ``check=True``; ``check=False`` skips the check of the whole.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from pie_fast import _native
from pie_fast.errors import PieFastError
from pie_fast.types import Selection, SelectionStep, Swapped
from pie_fast.whole import threads_of, whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from numpy.typing import ArrayLike, NDArray

    Scores: TypeAlias = ArrayLike
    Csr: TypeAlias = tuple[ArrayLike, ArrayLike, ArrayLike]
    Synergy: TypeAlias = ArrayLike | Csr
    Bonus: TypeAlias = Literal["mean", "sum"]
    Backend: TypeAlias = Literal["native", "twin"]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_INTS = (np.dtype(np.int32), np.dtype(np.int64))
_INT64 = (np.dtype(np.int64),)
_BOOL = (np.dtype(np.bool_),)

#: A matrix of at most this many numbers is checked in every call.
_ALWAYS_CHECKED = 1 << 16

#: id of the values of a matrix that was checked -> weak references to its arrays
_checked: dict[int, tuple[weakref.ref[Any], ...]] = {}


def top_k(
    scores: Scores,
    k: int,
    *,
    mask: ArrayLike | None = None,
    threads: int | None = None,
    backend: Backend = "native",
) -> NDArray[np.int64]:
    """The positions of the k largest scores, exactly.

    Args:
        scores: ``[M]`` float32 or float64. Infinities are allowed.
        k: How many, 0 to M.
        mask: ``[M]`` bool, False leaves a position out (then fewer than k may come back).
        threads: At most so many; by default one per core, and one for under a million scores.
            The answer does not depend on it.
        backend: ``"native"`` or ``"twin"``.

    Returns:
        ``[k]`` int64, score descending, ties to the smaller position (-0.0 ties with 0.0).

    Raises:
        PieFastError: A NaN anywhere in ``scores``, or k out of range.
        TypeError: Another dtype or number of dimensions.
    """
    chosen = _array("scores", scores, 1, _FLOATS)
    allowed = None if mask is None else _array("mask", mask, 1, _BOOL)
    return _backend(backend).top_k(chosen, whole_number("k", k), allowed, threads_of(threads))  # type: ignore[no-any-return]


def top_k_per_layer(
    scores: Scores,
    k: int,
    n_layers: int,
    *,
    threads: int | None = None,
    backend: Backend = "native",
) -> NDArray[np.int64]:
    """The positions of the k largest scores of each layer, exactly.

    Args:
        scores: ``[n_layers * n_features]`` float32 or float64, layer after layer.
        k: How many of each layer, 0 to n_features.
        n_layers: How many layers.
        threads: As in :func:`top_k`.
        backend: ``"native"`` or ``"twin"``.

    Returns:
        ``[n_layers, k]`` int64 positions in ``scores``, each row as :func:`top_k` orders it.

    Raises:
        PieFastError: A NaN, k out of range, or scores that are not whole layers.
        TypeError: Another dtype or number of dimensions.
    """
    chosen = _array("scores", scores, 1, _FLOATS)
    count, layers = whole_number("k", k), whole_number("n_layers", n_layers)
    if layers < 1 or not len(chosen) or len(chosen) % layers:
        raise PieFastError(f"{len(chosen)} scores are not {layers} layers of equal size")
    size, cores = len(chosen) // layers, threads_of(threads)
    best = _backend(backend).top_k_per_layer(chosen, count, size, cores)
    return best.reshape(layers, count)  # type: ignore[no-any-return]


def greedy_select(
    scores: Scores,
    synergy: Synergy,
    k: int,
    *,
    bonus: Bonus = "mean",
    must_include: Sequence[int] | ArrayLike = (),
    must_exclude: Sequence[int] | ArrayLike = (),
    layers: ArrayLike | None = None,
    max_per_layer: int | None = None,
    check: bool | None = None,
    backend: Backend = "native",
) -> Selection:
    """Select k candidates by score and synergy with those selected before, exactly.

    Args:
        scores: ``[M]`` float32 or float64.
        synergy: Symmetric: dense ``[M, M]`` float32 or float64, or CSR ``(indptr [M+1] int64,
            indices [nnz] int32 or int64, values [nnz] float32 or float64)``. The order within a
            CSR row does not matter, a column twice in a row is an error, a stored 0 counts as
            absent. The diagonal is never used.
        k: How many, 0 to M.
        bonus: ``"mean"`` divides the synergies by the number selected (the method's rule),
            ``"sum"`` does not.
        must_include: Positions that are taken first, in this order.
        must_exclude: Positions that are never taken.
        layers: ``[M]`` int64, the layer of each candidate; needs ``max_per_layer``.
        max_per_layer: At most so many of one layer.
        check: Look at the whole matrix first; see the module documentation for the default.
        backend: ``"native"`` or ``"twin"``.

    Returns:
        ``ids`` in the order taken, and ``gains``, what each was taken for. The first j of a
        selection of k are the selection of j.

    Raises:
        PieFastError: k over M or over what the constraints leave; a number that is not finite;
            a matrix that is not symmetric or not of M candidates; a broken CSR.
        TypeError: Another dtype or number of dimensions.
    """
    engine = _backend(backend)
    base = _array("scores", scores, 1, _FLOATS)
    matrix = _matrix(synergy, engine, check)
    limits = _limits(must_include, must_exclude, layers, max_per_layer)
    ids, gains = engine.greedy_select(base, matrix, whole_number("k", k), bonus, limits)
    return Selection(ids, gains)


def explain_selection(
    scores: Scores,
    synergy: Synergy,
    k: int,
    *,
    bonus: Bonus = "mean",
    must_include: Sequence[int] | ArrayLike = (),
    must_exclude: Sequence[int] | ArrayLike = (),
    layers: ArrayLike | None = None,
    max_per_layer: int | None = None,
    check: bool | None = None,
    backend: Backend = "native",
) -> list[SelectionStep]:
    """The selection of :func:`greedy_select` with the reason for each step.

    Args:
        scores: As for :func:`greedy_select`, like all that follow.
        synergy: Dense or CSR.
        k: How many.
        bonus: ``"mean"`` or ``"sum"``.
        must_include: Taken first.
        must_exclude: Never taken.
        layers: The layer of each candidate.
        max_per_layer: At most so many of one layer.
        check: Look at the whole matrix first.
        backend: ``"native"`` or ``"twin"``.

    Returns:
        k steps: id, score, bonus, gain, and the runner-up with its value.

    Raises:
        PieFastError: As :func:`greedy_select`.
        TypeError: As :func:`greedy_select`.
    """
    engine = _backend(backend)
    base = _array("scores", scores, 1, _FLOATS)
    matrix = _matrix(synergy, engine, check)
    limits = _limits(must_include, must_exclude, layers, max_per_layer)
    steps = engine.explain_selection(base, matrix, whole_number("k", k), bonus, limits)
    return [SelectionStep(*step[:4], *(step[4] or (None, None))) for step in steps]


def improve_by_swaps(
    scores: Scores,
    synergy: Synergy,
    ids: ArrayLike,
    *,
    bonus: Bonus = "mean",
    max_swaps: int = 1000,
    must_include: Sequence[int] | ArrayLike = (),
    must_exclude: Sequence[int] | ArrayLike = (),
    layers: ArrayLike | None = None,
    max_per_layer: int | None = None,
    check: bool | None = None,
    backend: Backend = "native",
) -> Swapped:
    """Exchange selected candidates for others while that raises the objective of the whole set.

    Greedy never takes a choice back; this does. The objective of a set of k is the sum of its
    scores plus ``c`` times the sum of its pair synergies, with ``c = 1 / max(k - 1, 1)`` for
    ``bonus="mean"`` (each member counts the mean of its synergies with the others, the value by
    which greedy takes its last one) and 1 for ``"sum"``. Each round makes the one exchange that
    gains most, in O(k M); ties go to the earlier one to leave and the smaller id to come.

    Args:
        scores: As for :func:`greedy_select`.
        synergy: Dense or CSR.
        ids: ``[k]`` int64, distinct positions, e.g. ``greedy_select(...).ids``.
        bonus: ``"mean"`` or ``"sum"``.
        max_swaps: At most so many exchanges.
        must_include: Among ``ids``, never exchanged.
        must_exclude: Not among ``ids``, never taken in.
        layers: The layer of each candidate.
        max_per_layer: At most so many of one layer.
        check: Look at the whole matrix first.
        backend: ``"native"`` or ``"twin"``.

    Returns:
        The ids (each new one in the place of the one it replaced), the objective before and
        after, and the exchanges.

    Raises:
        PieFastError: As :func:`greedy_select`; ids out of range, there twice, or against the
            constraints.
        TypeError: As :func:`greedy_select`.
    """
    engine = _backend(backend)
    base = _array("scores", scores, 1, _FLOATS)
    matrix = _matrix(synergy, engine, check)
    limits = _limits(must_include, must_exclude, layers, max_per_layer)
    done, (before, after), swaps = engine.improve_by_swaps(
        base, matrix, _ids("ids", ids), bonus, whole_number("max_swaps", max_swaps), limits
    )
    return Swapped(done, before, after, tuple(swaps))


def greedy_select_many(
    scores: Scores,
    synergy: Synergy,
    k: int,
    *,
    bonus: Bonus = "mean",
    threads: int | None = None,
    check: bool | None = None,
    backend: Backend = "native",
) -> NDArray[np.int64]:
    """One greedy selection per row of scores, side by side: bootstraps, behaviours, starts.

    Args:
        scores: ``[B, M]`` float32 or float64.
        synergy: One matrix for all, as for :func:`greedy_select`.
        k: How many of each row.
        bonus: ``"mean"`` or ``"sum"``.
        threads: At most so many; by default one per core. The answer does not depend on it.
        check: Look at the whole matrix first.
        backend: ``"native"`` or ``"twin"``.

    Returns:
        ``[B, k]`` int64, row b what ``greedy_select(scores[b], synergy, k).ids`` is.

    Raises:
        PieFastError: As :func:`greedy_select`, naming the row.
        TypeError: As :func:`greedy_select`.
    """
    engine = _backend(backend)
    base = _array("scores", scores, 2, _FLOATS)
    matrix = _matrix(synergy, engine, check)
    return engine.greedy_select_many(base, matrix, whole_number("k", k), bonus, threads_of(threads))  # type: ignore[no-any-return]


def _backend(name: str) -> ModuleType | Any:
    if name == "native":
        return _native
    if name == "twin":
        from pie_fast import twin

        return twin
    raise PieFastError(f'backend {name!r} must be "native" or "twin"')


def _array(name: str, given: Any, ndim: int, dtypes: tuple[np.dtype[Any], ...]) -> NDArray[Any]:
    """``given`` as a C-contiguous array of one of the dtypes; a copy only when it must be."""
    array = np.asarray(given)
    if array.dtype not in dtypes:
        valid = " or ".join(dtype.name for dtype in dtypes)
        raise TypeError(f"{name} has dtype {array.dtype}, must be {valid}")
    if array.ndim != ndim:
        raise PieFastError(f"{name} has {_ndim_of(array)}, must have {ndim}")
    # Alignment too: a view into a packed file may start at an odd address.
    in_place = array.flags.c_contiguous and array.flags.aligned
    return array if in_place else np.require(array, requirements=["C", "A"])


def _ndim_of(array: NDArray[Any]) -> str:
    """``2 dimensions``, for messages."""
    return f"{array.ndim} dimension{'' if array.ndim == 1 else 's'}"


def _matrix(given: Any, engine: Any, check: bool | None) -> Any:
    """The matrix in the form that the engines take, checked as the module documentation says."""
    if isinstance(given, tuple):
        if len(given) != 3:
            raise PieFastError(
                f"synergy is a tuple of {len(given)}, must be (indptr, indices, values)"
            )
        names, dtypes = ("indptr", "indices", "values"), (_INT64, _INTS, _FLOATS)
        parts: tuple[Any, ...] = tuple(map(np.asarray, given))
        rows = zip(names, parts, dtypes, strict=True)
        matrix: Any = tuple(_array(name, part, 1, kinds) for name, part, kinds in rows)
    else:
        parts = (np.asarray(given),)
        matrix = _array("synergy", parts[0], 2, _FLOATS)
    if check or (check is None and not _was_checked(parts)):
        engine.check_synergy(matrix)
        _remember(parts)
    return matrix


def _was_checked(parts: tuple[NDArray[Any], ...]) -> bool:
    values = parts[-1]
    if values.size <= _ALWAYS_CHECKED:
        return False
    known = _checked.get(id(values))
    # An id may be that of a new array in the place of one that is gone.
    return known is not None and all(a() is b for a, b in zip(known, parts, strict=True))


def _remember(parts: tuple[NDArray[Any], ...]) -> None:
    key = id(parts[-1])

    def forget(_: object) -> None:
        _checked.pop(key, None)

    _checked[key] = tuple(weakref.ref(part, forget) for part in parts)


def _limits(
    include: Any, exclude: Any, layers: Any, max_per_layer: int | None
) -> dict[str, Any] | None:
    if (layers is None) != (max_per_layer is None):
        raise PieFastError("layers and max_per_layer must be given together")
    included, excluded = _ids("must_include", include), _ids("must_exclude", exclude)
    if layers is None and len(included) == 0 and len(excluded) == 0:
        return None
    return {
        "must_include": included,
        "must_exclude": excluded,
        "layers": None if layers is None else _ids("layers", layers),
        "max_per_layer": whole_number(
            "max_per_layer", 0 if max_per_layer is None else max_per_layer
        ),
    }


def _ids(name: str, given: Any) -> NDArray[np.int64]:
    array = np.asarray(given)
    if array.size == 0:
        array = array.astype(np.int64)
    return _array(name, array, 1, _INT64)
