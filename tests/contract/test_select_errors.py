"""What selection refuses and with which words, and what it promises beside its answers."""

from __future__ import annotations

import pickle  # of our own objects, made here; the package itself never unpickles a file
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pie_fast
from pie_fast import (
    PieFastError,
    greedy_select,
    greedy_select_many,
    select,
    top_k,
    top_k_per_layer,
)
from pie_fast import _native as native
from pie_fast.errors import BudgetError

BACKENDS = ["native", "twin"]
SCORES = np.array([3.0, 1.0, 2.0])
ROWS = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
DENSE = np.zeros((3, 3), dtype=np.float32)
CSR = (
    np.array([0, 1, 2, 2]),
    np.array([1, 0], dtype=np.int32),
    np.array([0.5, 0.5], dtype=np.float32),
)


def broken(at: tuple[int, int], value: float) -> np.ndarray:
    matrix = DENSE.copy()
    matrix[at] = value
    return matrix


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("scores", "synergy", "k", "message"),
    [
        (SCORES, DENSE, 4, "k 4 exceeds the 3 candidates"),
        (SCORES, DENSE, -1, "k is -1, must be at least 0"),
        (SCORES * np.nan, DENSE, 1, "score of id 0 is NaN, must be finite"),
        (np.array([0, 1, np.inf]), DENSE, 0, "score of id 2 is inf, must be finite"),
        (np.array([0, 1, -np.inf]), CSR, 0, "score of id 2 is -inf, must be finite"),
        (SCORES[:2], DENSE, 1, "synergy is of 3 candidates, scores of 2"),
        (SCORES[:2], CSR, 1, "synergy is of 3 candidates, scores of 2"),
        (SCORES, DENSE[:2], 1, r"synergy has shape \[2, 3\], must be square"),
        (SCORES, DENSE[0], 1, "synergy has 1 dimension, must have 2"),
        (SCORES[None], DENSE, 1, "scores has 2 dimensions, must have 1"),
        (SCORES, broken((1, 2), 2), 1, "synergy is not symmetric"),
        (SCORES, broken((1, 2), np.nan), 1, r"synergy\[.*\] is NaN, must be finite"),
        (SCORES, broken((1, 1), -np.inf), 0, r"synergy\[1, 1\] is -inf, must be finite"),
        (SCORES, (CSR[0], CSR[1], CSR[2][:1]), 1, "values has length 1, must be 2 as indices"),
        (SCORES, (CSR[0][:0], CSR[1], CSR[2]), 1, "indptr is empty, must have length M . 1"),
        (SCORES, (CSR[0] + 1, CSR[1], CSR[2]), 1, "indptr goes from 1 to 3, must go from 0 to 2"),
        (SCORES, (np.array([0, 2, 1, 2]), *CSR[1:]), 1, r"indptr\[1\] = 2 and indptr\[2\] = 1"),
        (SCORES, (CSR[0], CSR[1] + 2, CSR[2]), 1, r"row 0 .* column 3, must be in 0\.\.3"),
        (SCORES, (CSR[0], CSR[1] - 2, CSR[2]), 1, r"row 0 .* column -1, must be in 0\.\.3"),
        (SCORES, (np.array([0, 2, 2, 2]), CSR[1] * 0, CSR[2]), 1, "row 0 .* column 0 twice"),
        (SCORES, (CSR[0], CSR[1], CSR[2] * [1, 2]), 1, "synergy is not symmetric"),
        (SCORES, (np.array([0, 2, 2, 2]), *CSR[1:]), 1, "synergy is not symmetric"),
        (SCORES, CSR[:2], 1, "synergy is a tuple of 2"),
    ],
)
def test_values_out_of_range(scores: Any, synergy: Any, k: int, message: str, backend: Any) -> None:
    if isinstance(synergy, tuple) and len(synergy) == 3:
        synergy = (*synergy[:2], synergy[2].astype(np.float32))
    with pytest.raises(PieFastError, match=message):
        greedy_select(scores, synergy, k, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("scores", "synergy", "message"),
    [
        (np.array([3, 1, 2]), DENSE, "scores has dtype int64, must be float32 or float64"),
        (SCORES.astype(np.float16), DENSE, "scores has dtype float16"),
        (SCORES.astype(">f8"), DENSE, "scores has dtype >f8"),
        (SCORES + 0j, DENSE, "scores has dtype complex128"),
        (["a", "b", "c"], DENSE, "scores has dtype <U1"),
        (SCORES, DENSE.astype(int), "synergy has dtype int64"),
        (SCORES, (CSR[0].astype(np.int32), *CSR[1:]), "indptr has dtype int32, must be int64"),
        (SCORES, (CSR[0], CSR[1].astype(np.uint32), CSR[2]), "indices has dtype uint32"),
        (SCORES, (*CSR[:2], CSR[2].astype(np.int32)), "values has dtype int32"),
    ],
)
def test_other_dtypes_are_type_errors(
    scores: Any, synergy: Any, message: str, backend: Any
) -> None:
    with pytest.raises(TypeError, match=message):
        greedy_select(scores, synergy, 1, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_words_out_of_range(backend: Any) -> None:
    with pytest.raises(PieFastError, match='bonus "max" must be "mean" or "sum"'):
        greedy_select(SCORES, DENSE, 1, bonus="max", backend=backend)  # type: ignore[arg-type]
    with pytest.raises(PieFastError, match=r"threads is 0, must be in \[1, 1024\]"):
        greedy_select_many(SCORES[None], DENSE, 1, threads=0, backend=backend)
    with pytest.raises(PieFastError, match=r"threads is 0, must be in \[1, 1024\]"):
        top_k(SCORES, 1, threads=0, backend=backend)
    with pytest.raises(PieFastError, match=r"threads is 1025, must be in \[1, 1024\]"):
        top_k(SCORES, 1, threads=1025, backend=backend)
    with pytest.raises(PieFastError, match="NaN, must be a number"):
        top_k(np.array([1, np.nan]), 1, backend=backend)
    with pytest.raises(PieFastError, match="mask has length 2, must be 3"):
        top_k(SCORES, 1, mask=[True, False], backend=backend)
    with pytest.raises(PieFastError, match="id 3 is NaN, must be a number"):
        top_k_per_layer(np.array([1, 2, 3, np.nan]), 1, 2, backend=backend)
    with pytest.raises(BudgetError, match="k 3 exceeds the 2 scores of a layer"):
        top_k_per_layer(np.zeros(4), 3, 2, backend=backend)
    with pytest.raises(PieFastError, match="n_layers is -3, must be at least 0"):
        top_k_per_layer(SCORES, 1, -3, backend=backend)
    for n_layers in (0, 2):
        with pytest.raises(PieFastError, match=f"3 scores are not {n_layers} layers"):
            top_k_per_layer(SCORES, 1, n_layers, backend=backend)
    with pytest.raises(PieFastError, match="given together"):
        greedy_select(SCORES, DENSE, 1, max_per_layer=2, backend=backend)
    for name in ("must_include", "must_exclude"):
        with pytest.raises(PieFastError, match=f"{name} has 0 dimensions, must have 1"):
            greedy_select(SCORES, DENSE, 1, backend=backend, **{name: 3})
    with pytest.raises(TypeError):
        greedy_select(SCORES, DENSE, 1.5, backend=backend)  # type: ignore[arg-type]
    with pytest.raises(PieFastError, match='must be "native" or "twin"'):
        greedy_select(SCORES, DENSE, 1, backend="rust")  # type: ignore[arg-type]


def test_the_row_of_a_bad_score_is_named() -> None:
    rows = np.array([[1.0, 2, 3], [1, np.nan, 3]])
    with pytest.raises(PieFastError, match="row 1: score of id 1 is NaN"):
        greedy_select_many(rows, DENSE, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_select(backend: Any) -> None:
    for scores, synergy in [(SCORES, DENSE), (SCORES, CSR), ([], np.zeros((0, 0)))]:
        none = greedy_select(scores, synergy, 0, backend=backend)
        assert len(none) == 0 and none.ids.dtype == np.int64 and none.gains.dtype == np.float64
    assert greedy_select_many(np.zeros((4, 3)), DENSE, 0, backend=backend).shape == (4, 0)
    assert greedy_select_many(np.zeros((0, 3)), DENSE, 2, backend=backend).shape == (0, 2)
    assert top_k([], 0, backend=backend).dtype == np.int64


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_equal_and_signed_zeros_go_by_id(backend: Any) -> None:
    flat = np.full(600, 0.25, dtype=np.float32)
    none = np.zeros((600, 600), dtype=np.float32)
    assert greedy_select(flat, none, 600, backend=backend).ids.tolist() == list(range(600))
    zeros = np.array([-0.0, 0.0, -0.0])
    assert greedy_select(zeros, DENSE, 3, backend=backend).ids.tolist() == [0, 1, 2]
    assert top_k(zeros, 3, backend=backend).tolist() == [0, 1, 2]
    assert not np.signbit(greedy_select(zeros, DENSE, 3, backend=backend).gains).any()


def test_the_worked_example() -> None:
    """Three steps by hand: 0 first, then 2 with its bonus, then the mean of two synergies."""
    synergy = np.array([[0, -1, 0.5], [-1, 0, 4], [0.5, 4, 0]])
    chosen = greedy_select(SCORES, synergy, 3)
    assert chosen.ids.tolist() == [0, 2, 1]
    assert chosen.gains.tolist() == [3.0, 2.5, 1 + (-1 + 4) / 2]
    assert greedy_select(SCORES, synergy, 3, bonus="sum").gains.tolist() == [3.0, 2.5, 4.0]


def test_views_are_copied_and_inputs_never_change() -> None:
    wide = np.random.default_rng(0).normal(size=(60, 60))
    wide += wide.T
    scores = wide[0].copy()
    want = greedy_select(scores[::2].copy(), wide[::2, ::2].copy(), 9).ids
    before = wide.tobytes()
    got = greedy_select(scores[::2], wide[::2, ::2], 9).ids
    assert got.tolist() == want.tolist()
    packed = np.frombuffer(b"\0" + scores.tobytes(), dtype=np.uint8)[1:].view(np.float64)
    assert not packed.flags.aligned
    assert top_k(packed, 5).tolist() == top_k(scores, 5).tolist()
    frozen = wide.copy()
    frozen.flags.writeable = False
    assert (
        greedy_select(scores, frozen, 5).ids.tolist() == greedy_select(scores, wide, 5).ids.tolist()
    )
    assert wide.tobytes() == before


def test_a_large_matrix_is_looked_at_once_per_object() -> None:
    m = 300
    matrix = np.zeros((m, m), dtype=np.float32)
    scores = np.arange(m, dtype=np.float64)
    greedy_select(scores, matrix, 2)
    matrix[3, 5] = 1.0
    # Changed in place where no row of the selection is: documented, and found on request.
    assert greedy_select(scores, matrix, 2).ids.tolist() == [299, 298]
    with pytest.raises(PieFastError, match="not symmetric"):
        greedy_select(scores, matrix, 2, check=True)
    with pytest.raises(PieFastError, match="not symmetric"):
        greedy_select(scores, matrix.copy(), 2)
    # What is read is looked at in any case.
    matrix[299, 7] = np.nan
    with pytest.raises(PieFastError, match=r"synergy\[299, 7\] is NaN"):
        greedy_select(scores, matrix, 2, check=False)
    before = len(select._checked)
    del matrix
    assert len(select._checked) == before - 1


CALLS: dict[str, Callable[[], Any]] = {
    "top_k": lambda: top_k(SCORES, 2),
    "top_k_per_layer": lambda: top_k_per_layer(SCORES, 2, 1),
    "greedy_select": lambda: greedy_select(SCORES, DENSE, 2),
    "greedy_select_many": lambda: greedy_select_many(ROWS, CSR, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_go_in_and_out_without_a_copy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the native function receives has the addresses of what the caller handed in, and what
    the caller gets has those of what it returned: of memory that Rust allocated."""
    given: list[int] = []
    returned: list[np.ndarray] = []

    def spy(*arguments: Any) -> Any:
        given.extend(array.ctypes.data for array in arrays_of(arguments))
        result = real(*arguments)
        returned.extend(arrays_of(result))
        return result

    real = getattr(native, name)
    monkeypatch.setattr(native, name, spy)
    result = CALLS[name]()
    scores = ROWS if name == "greedy_select_many" else SCORES
    synergy = {"greedy_select": (DENSE,), "greedy_select_many": CSR}.get(name, ())
    assert given == [array.ctypes.data for array in (scores, *synergy)]
    got = [result.ids, result.gains] if name == "greedy_select" else [result]
    assert [a.ctypes.data for a in got] == [a.ctypes.data for a in returned]
    assert [owner_of(array) for array in got] == ["PySliceContainer"] * len(got)


def arrays_of(values: Any) -> list[np.ndarray]:
    """Arrays, also those in tuples."""
    if isinstance(values, np.ndarray):
        return [values]
    return [a for value in values for a in arrays_of(value)] if isinstance(values, tuple) else []


def owner_of(array: np.ndarray) -> str:
    """The type of what holds the memory at an array's address: of the numpy crate the one around
    a Rust `Vec`, and an array itself where numpy has allocated it."""
    owner: Any = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        assert owner.ctypes.data == array.ctypes.data
        owner = owner.base
    return type(owner).__name__


def test_no_copy_of_the_matrix_is_made_inside() -> None:
    """The native side cannot have copied 400 MB: the process did not grow by it."""
    resource = pytest.importorskip("resource")
    matrix = np.zeros((10_000, 10_000), dtype=np.float32)
    matrix[:] = 0.5
    scores = np.arange(10_000, dtype=np.float64)
    greedy_select(scores, matrix, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ids = greedy_select(scores, matrix, 50).ids
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(ids) == 50 and grown * 1024 < matrix.nbytes / 10


def test_results_own_their_memory() -> None:
    chosen = greedy_select(SCORES, DENSE, 2)
    chosen.ids[0] = 7
    assert greedy_select(SCORES, DENSE, 2).ids.tolist() == [0, 2]


@pytest.mark.parametrize("threads", [1, 2, 3, 8, None])
def test_threads_change_nothing(threads: int | None) -> None:
    rng = np.random.default_rng(0)
    many = rng.integers(0, 50, 3_000_000).astype(np.float32)
    assert top_k(many, 5000, threads=threads).tobytes() == top_k(many, 5000, threads=1).tobytes()
    matrix = rng.normal(size=(200, 200))
    matrix += matrix.T
    rows = rng.integers(0, 5, (17, 200)).astype(np.float64)
    one = [greedy_select(row, matrix, 60).ids for row in rows]
    assert greedy_select_many(rows, matrix, 60, threads=threads).tolist() == np.stack(one).tolist()


def test_names_are_public_and_torch_is_not_needed() -> None:
    for name in ("greedy_select", "greedy_select_many", "top_k", "top_k_per_layer"):
        assert callable(getattr(pie_fast, name))
    assert native.build_profile in ("release", "debug")
    code = "import sys, pie_fast.select; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_errors_pickle() -> None:
    with pytest.raises(PieFastError) as error:
        greedy_select(SCORES, DENSE, 9)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
