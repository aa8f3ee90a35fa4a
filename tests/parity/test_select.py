"""Native and twin give the same bits, and both are the rule as it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_fast import (
    PieFastError,
    explain_selection,
    greedy_select,
    greedy_select_many,
    improve_by_swaps,
    top_k,
    top_k_per_layer,
)

EDGE = [0.0, -0.0, 1e-45, -1e-45, 0.1, 0.3, 1.0, 1.0 + 2**-23, 1e30, -1e30]
NUMBERS = st.one_of(
    st.sampled_from(EDGE), st.integers(-4, 4).map(lambda x: x / 2), st.floats(-2, 2, width=32)
)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    m = draw(st.integers(0, 40))
    scores = np.array(draw(st.lists(NUMBERS, min_size=m, max_size=m)))
    palette = np.array(draw(st.lists(NUMBERS, min_size=1, max_size=8)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    upper = np.triu(rng.choice(palette, (m, m)) * (rng.random((m, m)) < density), 1)
    return {
        "scores": scores.astype(draw(st.sampled_from([np.float32, np.float64]))),
        "synergy": (upper + upper.T).astype(draw(st.sampled_from([np.float32, np.float64]))),
        "k": draw(st.integers(0, m + 1)),
        "bonus": draw(st.sampled_from(["mean", "sum"])),
    }


def to_csr(dense: np.ndarray, index: Any, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without the zeros, each row in a random order."""
    rng = np.random.default_rng(seed)
    columns = [rng.permutation(np.flatnonzero(row)) for row in dense]
    indptr = np.cumsum([0, *map(len, columns)]).astype(np.int64)
    indices = np.concatenate([np.zeros(0, int), *columns]).astype(index)
    values = np.concatenate(
        [np.zeros(0, dense.dtype), *(row[c] for row, c in zip(dense, columns, strict=True))]
    )
    return indptr, indices, values


def literal(scores: np.ndarray, synergy: np.ndarray, k: int, bonus: str) -> list[int]:
    """The rule in plain Python."""
    chosen: list[int] = []
    while len(chosen) < k:
        best, most = -1, -np.inf
        for f in range(len(scores)):
            if f in chosen:
                continue
            total = 0.0
            for s in chosen:
                total += float(synergy[f, s])
            value = float(scores[f]) + 0.0 + total / (max(len(chosen), 1) if bonus == "mean" else 1)
            if value > most:
                best, most = f, value
        chosen.append(best)
    return chosen


def outcome(call: Any) -> Any:
    """The result of a call, or its exception in comparable form."""
    try:
        return call()
    except (PieFastError, TypeError) as error:
        return type(error).__name__, str(error)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)


@settings(max_examples=1000, deadline=None)
@given(problems(), st.sampled_from([np.int32, np.int64]))
def test_greedy(problem: dict[str, Any], index: Any) -> None:
    scores, synergy, k, bonus = problem.values()
    sparse = to_csr(synergy, index, seed=k)
    results = [
        outcome(lambda b=backend, w=matrix: greedy_select(scores, w, k, bonus=bonus, backend=b))
        for backend in ("native", "twin")
        for matrix in (synergy, sparse)
    ]
    if k > len(scores):
        assert set(results) == {("BudgetError", f"k {k} exceeds the {len(scores)} candidates")}
        return
    for result in results:
        assert result.ids.tolist() == literal(scores, synergy, k, bonus)
        assert same(result.ids, results[0].ids) and same(result.gains, results[0].gains)
    shorter = greedy_select(scores, synergy, k // 2, bonus=bonus)
    assert same(shorter.ids, results[0].ids[: k // 2])


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(1, 3))
def test_many_and_explain(problem: dict[str, Any], threads: int) -> None:
    scores, synergy, k, bonus = problem.values()
    k = min(k, len(scores))
    rows = np.stack([scores, scores[::-1], scores * 0])
    want = [greedy_select(row, synergy, k, bonus=bonus).ids for row in rows]
    for backend in ("native", "twin"):
        ids = greedy_select_many(rows, synergy, k, bonus=bonus, threads=threads, backend=backend)
        assert ids.shape == (3, k) and same(ids, np.array(want, dtype=np.int64).reshape(3, k))
    for matrix in (synergy, to_csr(synergy, np.int32, seed=1)):
        steps = explain_selection(scores, matrix, k, bonus=bonus)
        twin = explain_selection(scores, matrix, k, bonus=bonus, backend="twin")
        assert steps == twin
        assert [step.id for step in steps] == want[0].tolist()
        for step in steps:
            assert step.runner_up is None or step.runner_up_value <= step.gain
            assert (step.runner_up is None) == (len(scores) == steps.index(step) + 1)


@settings(max_examples=200, deadline=None)
@given(
    problems(),
    st.lists(st.integers(-1, 41), max_size=4),
    st.lists(st.integers(-1, 41), max_size=20),
    st.integers(0, 8),
)
def test_limits(
    problem: dict[str, Any], include: list[int], exclude: list[int], per_layer: int
) -> None:
    scores, synergy, k, bonus = problem.values()
    limits = {
        "must_include": include,
        "must_exclude": exclude,
        "layers": np.arange(len(scores)) // 7,
        "max_per_layer": per_layer,
    }
    results = [
        outcome(lambda b=b, w=w: explain_selection(scores, w, k, bonus=bonus, backend=b, **limits))
        for b in ("native", "twin")
        for w in (synergy, to_csr(synergy, np.int64, seed=2))
    ]
    assert all(result == results[0] for result in results), results


@settings(max_examples=250, deadline=None)
@given(problems(), st.integers(0, 4), st.booleans(), st.data())
def test_swaps(problem: dict[str, Any], max_swaps: int, layered: bool, data: Any) -> None:
    scores, synergy, k, bonus = problem.values()
    m = len(scores)
    ids = np.array(data.draw(st.permutations(range(m)))[:k], dtype=np.int64)
    limits = {"layers": np.arange(m) // 7, "max_per_layer": 3} if layered else {}
    limits["must_include"] = data.draw(st.sampled_from([[], ids[:2], [m]]))
    limits["must_exclude"] = data.draw(st.sampled_from([[], ids[:1], [0]]))
    results = [
        outcome(
            lambda b=b, w=w: improve_by_swaps(
                scores, w, ids, bonus=bonus, max_swaps=max_swaps, backend=b, **limits
            )
        )
        for b in ("native", "twin")
        for w in (synergy, to_csr(synergy, np.int64, seed=2))
    ]
    first = results[0]
    if isinstance(first, tuple):
        assert all(result == first for result in results), results
        return
    for result in results[1:]:
        assert same(result.ids, first.ids) and result.swaps == first.swaps
        assert (result.before, result.objective) == (first.before, first.objective)
    assert first.objective > first.before or not first.swaps
    assert len(set(first.ids.tolist())) == len(ids) and len(first.swaps) <= max_swaps


def test_swaps_undo_what_greedy_regrets() -> None:
    """Greedy takes the best single one; the pair of the other two is better."""
    scores = np.array([1.0, 0.9, 0.8, 0.0])
    synergy = np.zeros((4, 4))
    synergy[1, 2] = synergy[2, 1] = 5
    synergy[0, 1] = synergy[1, 0] = -3
    synergy[0, 2] = synergy[2, 0] = -3
    greedy = greedy_select(scores, synergy, 2)
    assert greedy.ids.tolist() == [0, 3]
    better = improve_by_swaps(scores, synergy, greedy.ids)
    assert better.before == 1.0 and better.objective == 1.0
    start = np.array([0, 1])
    better = improve_by_swaps(scores, synergy, start)
    assert better.ids.tolist() == [2, 1] and better.swaps == ((0, 2),)
    assert better.objective == 0.9 + 0.8 + 5


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(NUMBERS, max_size=60),
    st.integers(1, 90),
    st.floats(0, 1.02),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_top_k(few: list[float], times: int, share: float, dtype: Any, masked: bool) -> None:
    scores = np.tile(np.array(few), times).astype(dtype)
    k = round(share * len(scores))
    mask = np.arange(len(scores)) % 3 != 1 if masked else None
    a = outcome(lambda: top_k(scores, k, mask=mask))
    b = outcome(lambda: top_k(scores, k, mask=mask, backend="twin"))
    assert same(a, b)
    if k <= len(scores) and not masked:
        order = sorted(range(len(scores)), key=lambda f: (-scores[f], f))
        assert a.tolist() == order[:k]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(NUMBERS, min_size=1, max_size=60),
    st.integers(1, 50),
    st.integers(1, 5),
    st.floats(0, 1.1),
    st.sampled_from([np.float32, np.float64]),
)
def test_top_k_per_layer(
    few: list[float], times: int, n_layers: int, share: float, dtype: Any
) -> None:
    scores = np.tile(np.array(few), times * n_layers).astype(dtype)
    layers = scores.reshape(n_layers, -1)
    n_features = layers.shape[1]
    k = round(share * n_features)
    a = outcome(lambda: top_k_per_layer(scores, k, n_layers))
    assert same(a, outcome(lambda: top_k_per_layer(scores, k, n_layers, backend="twin")))
    if k <= n_features:
        want = [top_k(layer, k) + at * n_features for at, layer in enumerate(layers)]
        assert a.shape == (n_layers, k) and a.tolist() == np.stack(want).tolist()


@settings(max_examples=200, deadline=None)
@given(problems(), st.data())
def test_broken_matrices(problem: dict[str, Any], data: st.DataObject) -> None:
    """One number made wrong: both backends refuse, for the same reason."""
    synergy = problem["synergy"]
    m = len(synergy)
    if m < 2:
        return
    i, j = data.draw(st.integers(0, m - 1)), data.draw(st.integers(0, m - 1))
    wrong = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 77.0]))
    if wrong == 77.0 and i == j:
        return
    synergy[i, j] = wrong
    zeros = np.zeros(m)
    for matrix in (synergy, to_csr(synergy, np.int32, seed=3)):
        texts = []
        for backend in ("native", "twin"):
            with pytest.raises(PieFastError) as error:
                greedy_select(zeros, matrix, 1, backend=backend)
            texts.append(str(error.value))
        word = "not symmetric" if wrong == 77.0 else "must be finite"
        assert all(word in text for text in texts), texts
