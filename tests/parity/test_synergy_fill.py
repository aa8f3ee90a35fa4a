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

WHAT: dict[str, Any] = {"direction": "noising", "estimator": "exact", "n_prompts": 3}


def equal(a: SynergyMatrix, b: SynergyMatrix) -> bool:
    arrays = zip(a.values, b.values, strict=True)
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in arrays)


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
    rng = np.random.default_rng(seed)
    # Few values: ties and zeros.
    upper = np.triu(rng.integers(-3, 4, (m, m)) / 2, 1)
    full, pool = upper + upper.T, np.sort(rng.choice(100, m, replace=False))
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
    left = ~again.done
    done = fill_sparse_rows(again, pool[left], full[left], 2)
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
        (some, [2], np.array([[7.0, 0, 0]]), 1, "features 1 and 2 is 1.0 in one matrix"),
        (SynergyMatrix([1, 2, 5], form="signed", **WHAT), [1], row, 1, "the matrix is dense"),
    ]:
        with pytest.raises(PieFastError, match=text):
            fill_sparse_rows(matrix, features, values, per_row)
