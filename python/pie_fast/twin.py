"""The numpy twin of every function of ``pie_fast._native``: same arguments, no cleverness.

A twin is what the native function must agree with, bit for bit in ids and gains, and what runs
with ``backend="twin"``. Read these to know what is computed; nothing here is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.errors import BudgetError, PieFastError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Reason = tuple[int, float, float, float, tuple[int, float] | None]


def _check_threads(threads: int | None) -> None:
    if threads is not None and not 1 <= threads <= 1024:
        raise PieFastError(f"threads is {threads}, must be in [1, 1024]")


def top_k(
    scores: NDArray[Any], k: int, mask: NDArray[np.bool_] | None, threads: int | None
) -> NDArray[np.int64]:
    """Ids of the k largest scores, ties to the smaller id; NaN is an error."""
    _check_threads(threads)
    if k > len(scores):
        raise BudgetError(f"k {k} exceeds the {len(scores)} scores")
    if mask is not None and len(mask) != len(scores):
        raise PieFastError(f"mask has length {len(mask)}, must be {len(scores)}")
    nan = np.flatnonzero(np.isnan(scores))
    if nan.size:
        raise PieFastError(f"score of id {nan[0]} is NaN, must be a number")
    order = np.argsort(-scores, kind="stable")
    return (order if mask is None else order[mask[order]])[:k].astype(np.int64)


def top_k_per_layer(
    scores: NDArray[Any], k: int, n_features: int, threads: int | None
) -> NDArray[np.int64]:
    """Ids of the k largest scores of each layer, layer by layer."""
    if k > n_features:
        raise BudgetError(f"k {k} exceeds the {n_features} scores of a layer")
    # Looked at as a whole, so that an error names a global id.
    top_k(scores, 0, None, threads)
    layers = scores.reshape(-1, n_features)
    best = [top_k(layer, k, None, None) + n * n_features for n, layer in enumerate(layers)]
    return np.concatenate(best)


def check_synergy(synergy: Any) -> None:
    """Every number of the matrix: finite, in range, symmetric."""
    if isinstance(synergy, tuple):
        _check_rows(*synergy)
        rows, columns, values = _triplets(*synergy)
        stored = values != 0
        rows, columns, values = rows[stored], columns[stored], values[stored]
        there, back = np.lexsort((columns, rows)), np.lexsort((rows, columns))
        same = (
            np.array_equal(rows[there], columns[back])
            and np.array_equal(columns[there], rows[back])
            and np.array_equal(values[there], values[back])
        )
    else:
        _check_square(synergy)
        if not np.isfinite(synergy).all():
            i, j = np.argwhere(~np.isfinite(synergy))[0]
            raise PieFastError(f"synergy[{i}, {j}] is {_show(synergy[i, j])}, must be finite")
        same = np.array_equal(synergy, synergy.T)
    if not same:
        raise PieFastError("synergy is not symmetric")


def greedy_select(
    scores: NDArray[Any], synergy: Any, k: int, bonus: str, limits: dict[str, Any] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and gains of a greedy selection."""
    taken = list(_steps(scores, synergy, k, bonus, limits))
    ids = np.array([step[0] for step in taken], dtype=np.int64)
    return ids, np.array([step[3] for step in taken], dtype=np.float64)


def explain_selection(
    scores: NDArray[Any], synergy: Any, k: int, bonus: str, limits: dict[str, Any] | None = None
) -> list[Reason]:
    """What was taken at each step, and why: id, score, bonus, gain, runner-up and its value."""
    return list(_steps(scores, synergy, k, bonus, limits))


def greedy_select_many(
    scores: NDArray[Any], synergy: Any, k: int, bonus: str, threads: int | None
) -> NDArray[np.int64]:
    """One selection per row of scores; ``[B, k]`` ids."""
    _check_threads(threads)
    rows = [greedy_select(row, synergy, k, bonus)[0] for row in scores]
    return np.array(rows, dtype=np.int64).reshape(len(scores), k)


def improve_by_swaps(
    scores: NDArray[Any],
    synergy: Any,
    ids: NDArray[np.int64],
    bonus: str,
    max_swaps: int,
    limits: dict[str, Any] | None = None,
) -> tuple[NDArray[np.int64], tuple[float, float], list[tuple[int, int]]]:
    """The ids after exchanges that raise the objective, the objective before and after, and the
    exchanges as (out, in).
    """
    base = _base(scores, synergy, bonus)
    m, k = len(base), len(ids)
    for at, f in enumerate(ids):
        if not 0 <= f < m:
            raise PieFastError(f"id {f} is not in 0..{m}")
        if f in ids[:at]:
            raise PieFastError(f"id {f} is selected twice")
    rules = _checked_limits(limits, k, m)
    _check_start(ids, rules)
    factor = 1 / max(k - 1, 1) if bonus == "mean" else 1.0
    ids = ids.copy()
    swaps: list[tuple[int, int]] = []
    before = now = _objective(base, synergy, ids, factor)
    while len(swaps) < max_swaps:
        best: tuple[int, int] | None = None
        most = 0.0
        total = np.zeros(m)
        for s in ids:
            total += _row(synergy, s, m)
        for place, g in enumerate(ids):
            value = base + factor * (total - _row(synergy, g, m))
            free = np.flatnonzero(_may_come(ids, g, rules, m))
            if g in rules["must_include"] or not free.size:
                continue
            f = int(free[value[free].argmax()])
            if value[f] - value[g] > most:
                best, most = (place, f), value[f] - value[g]
        if best is None:
            break
        tried = ids.copy()
        tried[best[0]] = best[1]
        after = _objective(base, synergy, tried, factor)
        if after <= now:
            break
        swaps.append((int(ids[best[0]]), best[1]))
        ids, now = tried, after
    return ids, (before, now), swaps


def _check_start(ids: NDArray[np.int64], rules: dict[str, Any]) -> None:
    """The selection that is to be improved keeps to the limits itself."""
    for f in rules["must_include"]:
        if f not in ids:
            raise PieFastError(f"must_include id {f} is not selected")
    for f in rules["must_exclude"]:
        if f in ids:
            raise PieFastError(f"must_exclude id {f} is selected")
    if rules["layers"] is not None:
        layers = rules["layers"][ids]
        for layer in layers:
            n = int((layers == layer).sum())
            if n > rules["limit"]:
                raise PieFastError(
                    f"{n} ids of layer {layer} are selected, at most {rules['limit']} are allowed"
                )


def _may_come(ids: NDArray[np.int64], g: int, rules: dict[str, Any], m: int) -> NDArray[np.bool_]:
    """Who may take the place of g."""
    free = np.ones(m, dtype=np.bool_)
    free[ids] = free[rules["must_exclude"]] = False
    if rules["layers"] is not None:
        layers = rules["layers"]
        present, counts = np.unique(layers[ids], return_counts=True)
        free &= ~np.isin(layers, present[counts == rules["limit"]]) | (layers == layers[g])
    return free


def _objective(
    base: NDArray[np.float64], synergy: Any, ids: NDArray[np.int64], factor: float
) -> float:
    """Sum of scores and of pairs, in the order of ids."""
    scores = pairs = 0.0
    ordered = np.sort(ids)
    for at, f in enumerate(ordered):
        scores += float(base[f])
        row = _row(synergy, f, len(base))
        for g in ordered[at + 1 :]:
            pairs += float(row[g])
    value = scores + factor * pairs
    if not np.isfinite(value):
        raise PieFastError("the synergies of a candidate add up to more than float64 can hold")
    return value


def unpack_synergy(packed: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """A packed upper triangle as a full matrix."""
    full = np.zeros((n, n), dtype=np.float32)
    first, second = np.triu_indices(n, 1)
    full[first, second] = packed
    full[second, first] = packed
    return full


def top_synergies(
    joint: NDArray[Any],
    single: NDArray[np.float64],
    per_row: int,
    clipped: bool,
    symmetric: bool,
    threads: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The strongest pairs of every row as CSR."""
    n = len(single)
    first, second = np.triu_indices(n, 1)
    values = (joint.astype(np.float64) - single[first] - single[second]).astype(np.float32)
    full = unpack_synergy(np.maximum(values, 0) if clipped else values, n)
    rank = np.argsort(np.argsort(-np.abs(full), axis=1, kind="stable"), axis=1)
    kept = (rank < per_row) & (full != 0)
    rows, columns = np.nonzero(kept | kept.T if symmetric else kept)
    indptr = np.cumsum([0, *np.bincount(rows, minlength=n)]).astype(np.int64)
    return indptr, columns.astype(np.int32), full[rows, columns]


def synergy_clusters(matrix: Any, threshold: float) -> NDArray[np.int64]:
    """The smallest id of each candidate's group."""
    if isinstance(matrix, tuple):
        rows, columns, values = _triplets(*matrix)
        linked = np.zeros((len(matrix[0]) - 1,) * 2, dtype=bool)
        linked[rows, columns] = values >= threshold
    else:
        linked = matrix >= threshold
    linked = linked | linked.T | np.eye(len(linked), dtype=bool)
    labels = np.arange(len(linked))
    while True:
        lower = np.array([labels[row].min() for row in linked], dtype=np.int64)
        if np.array_equal(lower, labels):
            return lower
        labels = lower


def _steps(
    scores: NDArray[Any], synergy: Any, k: int, bonus: str, limits: dict[str, Any] | None
) -> Iterator[Reason]:
    """The greedy rule of the method, with constraints."""
    base = _base(scores, synergy, bonus)
    m = len(base)
    if k > m:
        raise BudgetError(f"k {k} exceeds the {m} candidates")
    rules = _checked_limits(limits, k, m)
    layers, left = rules["layers"], rules["max_per_layer"]
    free = np.ones(m, dtype=bool)
    free[rules["must_exclude"]] = False
    total = np.zeros(m)
    for n in range(k):
        value = base + total / (max(n, 1) if bonus == "mean" else 1)
        ranked = np.flatnonzero(free)
        if n >= len(rules["must_include"]) and not ranked.size:
            raise BudgetError(f"k {k} exceeds the {n} candidates that the constraints leave")
        ranked = ranked[np.argsort(-value[ranked], kind="stable")]
        best = int(rules["must_include"][n] if n < len(rules["must_include"]) else ranked[0])
        others = ranked[ranked != best]
        second = (int(others[0]), float(value[others[0]])) if others.size else None
        if not np.isfinite(value[best]):
            raise PieFastError("the synergies of a candidate add up to more than float64 can hold")
        gain, score = float(value[best]), float(base[best])
        yield best, score, gain - score, gain, second
        free[best] = False
        if layers is not None:
            left[layers[best]] = left.get(layers[best], rules["limit"]) - 1
            if left[layers[best]] == 0:
                free[layers == layers[best]] = False
        if n + 1 < k:
            total += _row(synergy, best, m)


def _base(scores: NDArray[Any], synergy: Any, bonus: str) -> NDArray[np.float64]:
    """The scores in float64, checked, -0.0 as 0.0."""
    m = len(scores)
    if bonus not in ("mean", "sum"):
        raise PieFastError(f'bonus "{bonus}" must be "mean" or "sum"')
    if not isinstance(synergy, tuple):
        _check_square(synergy)
    n = len(synergy[0]) - 1 if isinstance(synergy, tuple) else len(synergy)
    if n != m:
        raise PieFastError(f"synergy is of {n} candidates, scores of {m}")
    base = scores.astype(np.float64) + 0.0
    if not np.isfinite(base).all():
        at = int(np.flatnonzero(~np.isfinite(base))[0])
        raise PieFastError(f"score of id {at} is {_show(base[at])}, must be finite")
    return base


def _checked_limits(limits: dict[str, Any] | None, k: int, m: int) -> dict[str, Any]:
    limits = limits or {
        "must_include": np.zeros(0, dtype=np.int64),
        "must_exclude": np.zeros(0, dtype=np.int64),
        "layers": None,
        "max_per_layer": 0,
    }
    include, exclude, layers = (limits[x] for x in ("must_include", "must_exclude", "layers"))
    if layers is not None and len(layers) != m:
        raise PieFastError(f"layers has length {len(layers)}, must be {m}")
    if layers is not None and limits["max_per_layer"] == 0:
        raise PieFastError("max_per_layer is 0, must be at least 1")
    for name, ids in (("must_include", include), ("must_exclude", exclude)):
        for at, f in enumerate(ids):
            if not 0 <= f < m:
                raise PieFastError(f"{name} id {f} is not in 0..{m}")
            if name == "must_include" and f in ids[:at]:
                raise PieFastError(f"must_include has id {f} twice")
    for f in exclude:
        if f in include:
            raise PieFastError(f"id {f} must be included and excluded")
    if len(include) > k:
        raise PieFastError(f"must_include has {len(include)} ids, k is only {k}")
    limit = limits["max_per_layer"]
    if layers is not None:
        for layer, n in zip(*np.unique(layers[include], return_counts=True), strict=True):
            if n > limit:
                raise PieFastError(
                    f"must_include has {n} ids of layer {layer}, at most {limit} are allowed"
                )
    return {**limits, "limit": limit, "max_per_layer": {}}


def _row(synergy: Any, f: int, m: int) -> NDArray[np.float64]:
    row = np.zeros(m)
    if isinstance(synergy, tuple):
        indptr, indices, values = synergy
        here = slice(indptr[f], indptr[f + 1])
        row[indices[here]] = values[here]
    else:
        row[:] = synergy[f]
    if not np.isfinite(row).all():
        at = int(np.flatnonzero(~np.isfinite(row))[0])
        raise PieFastError(f"synergy[{f}, {at}] is {_show(row[at])}, must be finite")
    return row


def _check_square(synergy: NDArray[Any]) -> None:
    rows, columns = synergy.shape
    if rows != columns:
        raise PieFastError(f"synergy has shape [{rows}, {columns}], must be square")


def _triplets(
    indptr: NDArray[np.int64], indices: NDArray[Any], values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), indices, values


def _check_rows(indptr: NDArray[np.int64], indices: NDArray[Any], values: NDArray[Any]) -> None:
    n, nnz = len(indptr) - 1, len(indices)
    if len(values) != nnz:
        raise PieFastError(f"values has length {len(values)}, must be {nnz} as indices")
    if n < 0:
        raise PieFastError("indptr is empty, must have length M + 1")
    if indptr[0] != 0 or indptr[-1] != nnz:
        raise PieFastError(f"indptr goes from {indptr[0]} to {indptr[-1]}, must go from 0 to {nnz}")
    for row in range(n):
        start, end = indptr[row], indptr[row + 1]
        if not 0 <= start <= end <= nnz:
            raise PieFastError(
                f"indptr[{row}] = {start} and indptr[{row + 1}] = {end}, "
                f"must ascend within 0..={nnz}"
            )
        for column, value in zip(indices[start:end], values[start:end], strict=True):
            if not 0 <= column < n:
                raise PieFastError(f"row {row} of synergy has column {column}, must be in 0..{n}")
            if not np.isfinite(value):
                raise PieFastError(f"synergy[{row}, {column}] is {_show(value)}, must be finite")
        columns = np.sort(indices[start:end])
        twice = columns[1:][columns[1:] == columns[:-1]]
        if twice.size:
            raise PieFastError(f"row {row} of synergy has column {twice[0]} twice")


def _show(value: Any) -> str:
    """As Rust prints it."""
    return "NaN" if np.isnan(value) else f"{float(value):g}"
