"""Native synergy functions and their twins; a matrix however it was filled is the same matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_fast import PieFastError, SynergyMatrix, _native, pair_synergy, top_synergies, twin

IDENTITY = {
    "direction": "noising",
    "estimator": "exact",
    "form": "signed",
    "n_prompts": 3,
}


def identical(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 90), st.integers(0, 12), st.integers(0, 2**32 - 1), st.booleans(), st.data())
def test_top(n: int, per_row: int, seed: int, clipped: bool, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    ties = data.draw(st.booleans())
    pairs = n * (n - 1) // 2
    joint = rng.integers(-3, 4, pairs) / 2 if ties else rng.normal(size=pairs)
    joint = joint.astype(data.draw(st.sampled_from([np.float32, np.float64])))
    single = rng.integers(-2, 3, n) / 4 if ties else rng.normal(size=n)
    for symmetric in (False, True):
        rest = (per_row, clipped, symmetric, data.draw(st.sampled_from([None, 1, 3])))
        native = _native.top_synergies(joint, single, *rest)
        assert identical(native, twin.top_synergies(joint, single, *rest))


@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "ramp", "few"])
def test_top_with_thresholds_from_a_sample(kind: str) -> None:
    """Sizes at which rows are sampled, and rows whose sample is far from the truth."""
    n = 700
    rng = np.random.default_rng(0)
    pairs = n * (n - 1) // 2
    single = np.zeros(n)
    joint = {
        "normal": rng.normal(size=pairs),
        "ties": rng.integers(-3, 4, pairs).astype(float),
        "zeros": np.zeros(pairs),
        "ramp": np.arange(pairs, dtype=float),
        "few": rng.normal(size=pairs) * (rng.random(pairs) < 0.01),
    }[kind]
    native = _native.top_synergies(joint, single, 20, False, False, 2)
    assert identical(native, twin.top_synergies(joint, single, 20, False, False, 2))
    assert identical(native, _native.top_synergies(joint, single, 20, False, False, 1))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 30), st.floats(0.05, 2), st.integers(0, 2**32 - 1))
def test_clusters_and_unpack(n: int, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sparse = rng.normal(size=n * (n - 1) // 2) * (rng.random(n * (n - 1) // 2) < 2 / max(n, 1))
    packed = sparse.astype(np.float32)
    full = _native.unpack_synergy(packed, n)
    assert identical((full,), (twin.unpack_synergy(packed, n),))
    csr = _native.top_synergies(packed, np.zeros(n), n, False, True, 1)
    want = twin.synergy_clusters(full, threshold).tolist()
    assert _native.synergy_clusters(full, threshold).tolist() == want
    assert _native.synergy_clusters(csr, threshold).tolist() == want
    assert twin.synergy_clusters(csr, threshold).tolist() == want


def example(m: int, **changes: Any) -> tuple[SynergyMatrix, np.ndarray]:
    rng = np.random.default_rng(m)
    pool = np.sort(rng.choice(1 << 20, m, replace=False))
    values = rng.normal(size=(m, m)).astype(np.float32)
    values = np.triu(values, 1) + np.triu(values, 1).T
    return SynergyMatrix(pool, **{**IDENTITY, **changes}), values


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 25), st.sampled_from(["signed", "clipped"]), st.randoms())
def test_filled_in_any_way(m: int, form: str, random: Any) -> None:
    matrix, values = example(m, form=form)
    rows = list(range(m))
    random.shuffle(rows)
    for row in rows[: m // 2]:
        matrix.fill_row(matrix.pool[row], values[row])
        assert matrix.done[row]
    pairs = [(i, j) for i in range(m) for j in range(m) if i != j]
    random.shuffle(pairs)
    for at in range(0, len(pairs), 7):
        some = np.array(pairs[at : at + 7])
        matrix.fill_pairs(matrix.pool[some], values[some[:, 0], some[:, 1]])
    assert matrix.done.all()
    want = np.maximum(values, 0) if form == "clipped" else values
    assert isinstance(matrix.values, np.ndarray) and np.array_equal(matrix.values, want)
    whole = SynergyMatrix.from_dense(matrix.pool, want, **{**IDENTITY, "form": form})
    assert np.array_equal(whole.values, matrix.values) and whole.stats() == matrix.stats()


def test_saved_and_resumed(tmp_path: Path) -> None:
    matrix, values = example(12)
    path = tmp_path / "synergy.safetensors"
    for row in (3, 0, 7):
        matrix.fill_row(matrix.pool[row], values[row])
        matrix.save(path)
        matrix = SynergyMatrix.load(path)
    assert matrix.done.tolist() == [row in (3, 0, 7) for row in range(12)]
    matrix.fill_pairs(matrix.pool[[[1, 2], [5, 4]]], [values[1, 2], values[5, 4]])
    matrix.save(path)
    again = SynergyMatrix.load(path)
    assert again.stats().n_known == matrix.stats().n_known == 11 + 10 + 9 + 2
    for row in range(12):
        again.fill_row(again.pool[row], values[row])
    assert again.done.all() and np.array_equal(again.values, values)
    assert again.direction == "noising" and again.n_prompts == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_any_reader_of_safetensors_reads_it(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    matrix, values = example(6)
    matrix.redundancy = np.eye(6, dtype=np.float32)
    for row in range(5):
        matrix.fill_row(matrix.pool[row], values[row])
    matrix.save(tmp_path / "s")
    tensors = safetensors.load_file(tmp_path / "s")
    assert sorted(tensors) == ["done", "pool", "redundancy", "values"]
    assert tensors["pool"].dtype == np.uint32 and tensors["done"].tolist() == [1] * 6
    assert np.array_equal(tensors["values"], values)
    sparse = matrix.sparsified(2)
    sparse.save(tmp_path / "s")
    assert sorted(safetensors.load_file(tmp_path / "s")) == [
        "done",
        "indices",
        "indptr",
        "pool",
        "redundancy",
        "values",
    ]
    again = SynergyMatrix.load(tmp_path / "s")
    assert identical(again.values, sparse.values) and again.stats() == sparse.stats()


def test_for_pool_follows_the_order_asked_for() -> None:
    matrix, values = example(9)
    with pytest.raises(PieFastError, match=r"features \d+ and \d+ is not known, 0 of 9 rows"):
        matrix.for_pool(matrix.pool[:2])
    for row in (1, 4, 6):
        matrix.fill_row(matrix.pool[row], values[row])
    at = np.array([6, 1, 4])
    assert np.array_equal(matrix.for_pool(matrix.pool[at]), values[np.ix_(at, at)])
    assert np.array_equal(matrix.for_pool([]), np.zeros((0, 0)))
    with pytest.raises(PieFastError, match="feature -1 is not in the pool of 9"):
        matrix.for_pool([-1])
    with pytest.raises(PieFastError, match="twice"):
        matrix.for_pool(matrix.pool[[1, 1]])
    for row in range(9):
        matrix.fill_row(matrix.pool[row], values[row])
    sparse = matrix.sparsified(9)
    indptr, indices, numbers = sparse.for_pool(matrix.pool[at])
    dense = np.zeros((3, 3), dtype=np.float32)
    dense[np.repeat(np.arange(3), np.diff(indptr)), indices] = numbers
    assert np.array_equal(dense, values[np.ix_(at, at)])
    assert matrix.for_pool(matrix.pool) is matrix.values


def test_merge() -> None:
    one, values = example(10)
    two, three = (SynergyMatrix(one.pool, **IDENTITY) for _ in range(2))
    for matrix, rows in ((one, range(4)), (two, range(3, 8)), (three, [9])):
        for row in rows:
            matrix.fill_row(one.pool[row], values[row])
    whole = one.merge(two, three)
    assert whole.done.all() and np.array_equal(whole.values, values)
    assert one.done.sum() == 4
    wrong = SynergyMatrix(one.pool, **IDENTITY)
    wrong.fill_row(one.pool[2], values[2] + 1)
    with pytest.raises(PieFastError, match=r"synergy of features \d+ and \d+ is known"):
        one.merge(wrong)
    for change in ({"direction": "denoising"}, {"n_prompts": 4}, {"estimator": "x"}):
        with pytest.raises(PieFastError, match="cannot be merged"):
            one.merge(SynergyMatrix(one.pool, **{**IDENTITY, **change}))
    with pytest.raises(PieFastError, match="different pools"):
        one.merge(SynergyMatrix(one.pool + 1, **IDENTITY))
    sparse, rest = whole.sparsified(3), whole.sparsified(5)
    assert identical(sparse.merge(rest).values, rest.values)
    with pytest.raises(PieFastError, match="in one matrix and"):
        double = tuple(x * np.asarray(1 + (at == 2), x.dtype) for at, x in enumerate(rest.values))
        sparse.merge(SynergyMatrix.from_csr(one.pool, double, **IDENTITY))
    with pytest.raises(PieFastError, match="sparse"):
        whole.merge(sparse)


def test_stats_and_clusters() -> None:
    pool = [10, 20, 30, 40, 50]
    values = np.zeros((5, 5), dtype=np.float32)
    for i, j, w in ((0, 3, 2.0), (3, 4, 1.0), (1, 2, -3.0)):
        values[i, j] = values[j, i] = w
    redundancy = np.zeros((5, 5), dtype=np.float32)
    redundancy[1, 2] = redundancy[2, 1] = 0.9
    matrix = SynergyMatrix.from_dense(pool, values, redundancy=redundancy, **IDENTITY)
    for form in (matrix, matrix.sparsified(5)):
        stats = form.stats(2)
        assert stats.strongest == [(20, 30, -3.0), (10, 40, 2.0)]
        assert (stats.n_positive, stats.n_negative, stats.n_pairs) == (2, 1, 10)
        assert form.clusters(1.0) == [[10, 40, 50]]
        assert form.clusters(1.5) == [[10, 40]]
        assert form.clusters(0.5, by="redundancy") == [[20, 30]]
    assert matrix.stats().share_positive == 0.2
    with pytest.raises(PieFastError, match="threshold is 0, must be above 0"):
        matrix.clusters(0)


def test_pair_synergy_keeps_redundancy_unless_clipped() -> None:
    assert pair_synergy([3.0, 1.0], 1.0, [1.0, 2.0]).tolist() == [1.0, -2.0]
    assert pair_synergy([3.0, 1.0], 1.0, [1.0, 2.0], form="clipped").tolist() == [1.0, 0.0]
    csr = top_synergies(np.array([3.0, 1.0, 2.5]), np.ones(3), 1, form="clipped")
    assert [part.tolist() for part in csr] == [[0, 1, 3, 4], [1, 0, 2, 1], [1, 1, 0.5, 0.5]]
