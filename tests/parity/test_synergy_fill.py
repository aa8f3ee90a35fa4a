"""Sparse matrices filled by rows against the dense one thinned out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_fast import PieFastError, SynergyMatrix
from pie_fast.synergy_fill import empty_sparse, fill_sparse_rows
from pie_fast.synergy_pairs import SparsePairs

WHAT: dict[str, Any] = {"direction": "noising", "estimator": "exact", "n_prompts": 3}


def equal(a: SynergyMatrix, b: SynergyMatrix) -> bool:
    arrays = zip(a.values, b.values, strict=True)
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in arrays)


def drawn(m: int, seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """What goes on drawing, a pool, and its synergies: few values, so ties and zeros."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.integers(-3, 4, (m, m)) / 2, 1)
    return rng, np.sort(rng.choice(100, m, replace=False)), upper + upper.T


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 14),
    st.integers(0, 15),
    st.sampled_from(["signed", "clipped"]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
)
def test_rows_make_the_dense_matrix_thinned_out(
    m: int, per_row: int, form: Any, seed: int, block: int
) -> None:
    rng, pool, full = drawn(m, seed)
    dense = SynergyMatrix(pool, form=form, **WHAT)
    for feature, row in zip(pool, full, strict=True):
        dense.fill_row(feature, row)
    want = dense.sparsified(per_row)

    parts = [empty_sparse(pool, form=form, **WHAT) for _ in range(2)]
    order = rng.permutation(m)
    for n, start in enumerate(range(0, m, block)):
        rows = order[start : start + block]
        parts[n % 2] = fill_sparse_rows(parts[n % 2], pool[rows], full[rows], per_row)
        assert parts[n % 2].done[rows].all()
    assert parts[0].done.sum() + parts[1].done.sum() == m
    merged = parts[0].merge(parts[1])
    assert merged.done.all() and equal(merged, want)


def test_it_is_saved_and_resumed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(9, 9)).astype(np.float32), 1)
    full, pool = upper + upper.T, np.arange(9) * 3
    start = fill_sparse_rows(empty_sparse(pool, form="signed", **WHAT), pool[:4], full[:4], 2)
    start.save(tmp_path / "synergy.safetensors")
    again = SynergyMatrix.load(tmp_path / "synergy.safetensors")
    assert again.done.tolist() == [True] * 4 + [False] * 5 and equal(again, start)
    assert again.per_row == 2
    left = ~again.done
    done = fill_sparse_rows(again, pool[left], full[left])
    dense = SynergyMatrix.from_dense(pool, full, form="signed", **WHAT)
    assert done.done.all() and equal(done, dense.sparsified(2))


def test_what_does_not_fit_is_named() -> None:
    empty = empty_sparse([1, 2, 5], form="signed", **WHAT)
    row = np.array([[0.0, 1.0, 2.0]])
    some = fill_sparse_rows(empty, [1], row, 2)
    for matrix, features, values, per_row, text in [
        (empty, [3], row, 1, "feature 3 is not in the pool"),
        (empty, [1, 1], np.zeros((2, 3)), 1, "there twice"),
        (empty, [1], row[0], 1, r"shape \[3\], must be \[1, 3\]"),
        (empty, [1], row * np.nan, 1, "features 1 and 2 is nan"),
        (empty, [1], row, -1, "per_row is -1"),
        (some, [2], np.array([[7.0, 0, 0]]), 2, "features 1 and 2 is 1.0 in one matrix"),
        (SynergyMatrix([1, 2, 5], form="signed", **WHAT), [1], row, 1, "the matrix is dense"),
        (empty, [1], row, None, "per_row is not given"),
        (some, [2], row, 1, "per_row is 1, the matrix keeps 2"),
    ]:
        with pytest.raises(PieFastError, match=text):
            fill_sparse_rows(matrix, features, values, per_row)
    assert some.merge(fill_sparse_rows(empty, [2], np.ones((1, 3)), 1)).per_row is None


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(0, 13),
    st.sampled_from(["signed", "clipped"]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
)
def test_pairs_make_the_dense_matrix_thinned_out(
    m: int, per_row: int, form: Any, seed: int, block: int
) -> None:
    rng, pool, full = drawn(m, seed)
    dense = SynergyMatrix.from_dense(
        pool,
        np.maximum(full, 0 if form == "clipped" else -9).astype(np.float32),
        form=form,
        **WHAT,
    )
    # Some rows at once, then the pairs of the others, each in either direction.
    first = rng.choice(m, rng.integers(0, m), replace=False)
    start = empty_sparse(pool, form=form, **WHAT)
    start = fill_sparse_rows(start, pool[first], full[first], per_row)
    filler = SparsePairs(start)
    pairs = np.argwhere(np.triu(np.ones((m, m), bool), 1))
    pairs = pairs[~np.isin(pairs, first).all(axis=1)]
    pairs = rng.permuted(rng.permutation(pairs), axis=1)
    for begin in range(0, len(pairs), block):
        some = pairs[begin : begin + block]
        filler.add(pool[some], full[some[:, 0], some[:, 1]])
        rows = filler.matrix()
        new = rows.done & ~start.done
        assert equal(rows, fill_sparse_rows(start, pool[new], full[new], per_row))
    rows = filler.matrix()
    assert equal(rows, dense.sparsified(per_row))
    assert rows.done.all() or m == 1


def test_pairs_that_do_not_fit_are_named() -> None:
    filler = SparsePairs(empty_sparse([1, 2, 5], form="signed", **WHAT), 1)
    filler.add([[2, 1]], [0.5])
    for pairs, values, text in [
        ([[1, 2]], [0.5], "features 1 and 2 was given before"),
        ([[1, 5], [5, 1]], [0.5, 0.5], "features 1 and 5 was given before"),
        ([[1, 1]], [0.5], "feature 1 has no synergy with itself"),
        ([[1, 3]], [0.5], "feature 3 is not in the pool"),
        ([[1, 5]], [np.inf], "features 1 and 5 is inf"),
        ([[1, 5]], [1.0, 2.0], r"shape \[2\], must be \[1\]"),
    ]:
        with pytest.raises(PieFastError, match=text):
            filler.add(pairs, values)
    # What was refused was not taken.
    filler.add([[1, 5], [2, 5]], [0.25, 0])
    assert filler.matrix().done.all()


def test_a_pool_with_rows_that_are_not_done_is_refused() -> None:
    matrix = fill_sparse_rows(
        empty_sparse(range(9), form="signed", **WHAT), [0, 8], np.ones((2, 9)), 3
    )
    assert len(matrix.for_pool([8, 0])[0]) == 3
    text = "rows of features 1, 2, 3, 4, 5 and 2 more are not done, 2 of 9 are"
    with pytest.raises(PieFastError, match=text):
        matrix.for_pool(range(9))
    with pytest.raises(PieFastError, match="rows of features 7 are not done"):
        matrix.for_pool([7, 0])
