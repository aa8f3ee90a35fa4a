"""The native collector and its twin: the same bytes and the same errors, however it is fed."""

from __future__ import annotations

import contextlib
import inspect
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_fast import _native, twin_contexts
from pie_fast.errors import PieFastError

CLASSES = (_native.ContextCollector, twin_contexts.ContextCollector)
VALUES = st.sampled_from([0.0, 0.0, 0.0, -0.0, 1.0, 1.0, -1.0, 2.0, 0.1, 1e-45, 3e38])
SIZES = st.integers(0, 4)

Batch = tuple[int, np.ndarray, np.ndarray, np.ndarray]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[dict[str, Any], list[Batch]]:
    """Arguments of a collector, and batches of ragged sequences in any order."""
    k = draw(st.sampled_from([0, 1, 2, 17]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    palette = np.array(draw(st.lists(VALUES, min_size=1, max_size=8)), dtype=np.float32)
    batches: list[Batch] = []
    first = draw(st.integers(0, 3))
    for lengths in draw(st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=5)):
        ptr = np.cumsum([0, *lengths]).astype(np.int64)
        values = rng.choice(palette, (ptr[-1], k)).astype(np.float32)
        batches.append((first, ptr, values, rng.random(ptr[-1]) < 0.8))
        first += len(lengths) + draw(st.integers(0, 1))
    limits = {name: draw(SIZES) for name in ("n_top", "n_sample", "n_silent")}
    return {"n_features": k, **limits}, draw(st.permutations(batches))


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and a[name].tobytes() == b[name].tobytes()
        for name in a
    )


@settings(max_examples=250, deadline=None)
@given(corpora(), st.sampled_from([1, 2, 8, None]), st.integers(1, 3))
def test_native_and_twin_hold_the_same(corpus, threads, n_parts):
    limits, batches = corpus
    states = []
    for collector_class in CLASSES:
        whole = collector_class(**limits)
        for batch in batches:
            whole.add(*batch, threads=threads)
        states.append(whole.state())
        parts = [collector_class(**limits) for _ in range(n_parts)]
        for i, batch in enumerate(reversed(batches)):
            parts[i % n_parts].add(*batch)
        merged = collector_class.from_state(parts[0].state())
        for part in parts[1:]:
            merged.merge(part)
        states.append(merged.state())
        states.append(collector_class.from_state(merged.state()).state())
    assert all(same(state, states[0]) for state in states[1:])


def test_signatures_and_docstrings_are_the_same():
    native, twin = CLASSES
    assert native.__doc__ == twin.__doc__
    for name in ("add", "merge", "state", "from_state"):
        ours, theirs = getattr(native, name), getattr(twin, name)
        assert list(inspect.signature(ours).parameters) == list(
            inspect.signature(theirs).parameters
        )
        assert ours.__doc__ == theirs.__doc__
    new = inspect.signature(native).parameters
    assert [(p.name, p.default) for p in new.values()] == [
        (p.name, p.default) for p in inspect.signature(twin).parameters.values()
    ]


def batch(n: int = 3, k: int = 2) -> list[Any]:
    """Two sequences of ``n`` positions in all."""
    ptr = np.array([0, 1, n], dtype=np.int64)
    return [4, ptr, np.ones((n, k), dtype=np.float32), np.ones(n, dtype=bool)]


def with_value(value: float) -> np.ndarray:
    values = np.ones((3, 2), dtype=np.float32)
    values[1, 1] = value
    return values


@pytest.mark.parametrize("collector_class", CLASSES, ids=["native", "twin"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: -1}, r"first is -1, must be in 0\.\.=9223372036854775805"),
        ({0: 2**63 - 2}, r"first is 9223372036854775806, must be in 0"),
        ({0: 1}, "sequence 2 was added before"),
        ({0: 2}, "sequence 2 was added before"),
        ({1: np.zeros(0, dtype=np.int64)}, "ptr is empty"),
        ({1: np.array([1, 2, 3])}, r"ptr\[0\] is 1, must be 0"),
        ({1: np.array([0, 4, 3])}, r"ptr\[2\] is 3, must be at least 4"),
        ({1: np.array([0, -1, 3])}, r"ptr\[1\] is -1, must be at least 0"),
        ({1: np.array([0, 1, 2])}, "ptr ends at 2, must end at the 3 positions"),
        ({2: np.ones((4, 2), dtype=np.float32)}, "counted has length 3, must be the 4 rows"),
        ({2: np.ones((3, 3), dtype=np.float32)}, "values have 3 columns, must be the 2 features"),
        ({2: with_value(np.nan)}, r"values\[1, 1\] is NaN, must be finite"),
        ({2: with_value(-np.inf)}, r"values\[1, 1\] is -inf, must be finite"),
    ],
)
def test_a_broken_batch_is_refused_and_changes_nothing(collector_class, change, message):
    collector = collector_class(2)
    collector.add(2, *batch()[1:3], np.zeros(3, dtype=bool))
    before = collector.state()
    arguments = batch()
    for at, value in change.items():
        arguments[at] = value
    with pytest.raises(PieFastError, match=message):
        collector.add(*arguments)
    assert same(collector.state(), before)


def test_a_value_that_does_not_count_must_be_finite_too():
    first, ptr, _, counted = batch()
    for collector_class in CLASSES:
        with pytest.raises(PieFastError, match=r"values\[1, 1\] is NaN"):
            collector_class(2).add(first, ptr, with_value(np.nan), np.zeros_like(counted))


@pytest.mark.parametrize("collector_class", CLASSES, ids=["native", "twin"])
def test_only_collectors_of_other_sequences_and_the_same_kind_merge(collector_class):
    collector = collector_class(2, n_top=3)
    collector.add(*batch())
    before = collector.state()
    for other, message in [
        (collector_class(3, n_top=3), "other collector has 3 features, must have 2"),
        (collector_class(2), "has n_top 20, n_sample 200 and n_silent 200, must have 3, 200"),
        (collector, "sequence 4 was added before"),
    ]:
        with pytest.raises(PieFastError, match=message):
            collector.merge(other)
    assert same(collector.state(), before)


@pytest.mark.parametrize("collector_class", CLASSES, ids=["native", "twin"])
@pytest.mark.parametrize("name", ["n_features", "n_top", "n_sample", "n_silent"])
def test_sizes_are_not_negative(collector_class, name):
    with pytest.raises(PieFastError, match=f"{name} is -1, must be at least 0"):
        collector_class(**{"n_features": 1, name: -1})


def test_native_takes_exact_types_only():
    first, ptr, values, counted = batch()
    collector = _native.ContextCollector(2)
    for wrong in (
        (first, ptr.astype(np.int32), values, counted),
        (first, ptr, values.astype(np.float64), counted),
        (first, ptr, np.asfortranarray(values), counted),
        (first, ptr, values, counted.astype(np.uint8)),
    ):
        with pytest.raises(TypeError):
            collector.add(*wrong)
    with pytest.raises(PieFastError, match="n_features is 1000000, must be at most 32768"):
        _native.ContextCollector(10**6)


# a saved state that is broken


def saved_collector(first: int) -> Any:
    """Two features: the first fires in the first and last of three sequences, the other nowhere."""
    collector = _native.ContextCollector(2, n_top=1, n_sample=2, n_silent=2)
    values = np.array([[1, 0], [-3, 0], [0, 0], [2, 0]], dtype=np.float32)
    collector.add(first, np.array([0, 2, 3, 4]), values, np.ones(4, dtype=bool))
    return collector


def saved() -> dict[str, np.ndarray]:
    return saved_collector(0).state()


def test_what_is_saved():
    state = {name: array.tolist() for name, array in saved().items()}
    histogram = np.zeros((2, 2040), dtype=int)
    for size in (1, 2, 3):
        histogram[0, int(np.float32(size).view(np.uint32)) >> 20] += 1
    assert state == {
        "limits": [1, 2, 2],
        "counts": [3, 4],
        "seen": [[0, 3]],
        "fires": [3, 0],
        "coactive": [[3, 0], [0, 0]],
        "histogram": histogram.tolist(),
        "peak_ptr": [0, 2, 2],
        "peak_sequence": [0, 2],
        "peak_position": [1, 0],
        "peak_value": [-3, 2],
        "kept_ptr": [0, 3, 5],
        "kept_sequence": [0, 1, 2, 1, 2],
        "kept_kind": [3, 4, 2, 4, 4],
        "kept_values_ptr": [0, 2, 2, 3, 3, 3],
        "kept_values": [1, -3, 2],
    }


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("limits", 0, -1, "limits has -1, must be at least 0"),
        ("limits", 2, 1, "kept_kind of feature 0 has|kept_kind of feature 1 has 2 silent, must"),
        ("counts", 0, 4, "counts has 4 sequences, must be the 3 of seen"),
        ("counts", 1, 2, r"fires\[0\] is 3, must be at most the 2 counted positions"),
        ("seen", (0, 1), 0, "seen has 0 after 0, must ascend"),
        ("seen", (0, 0), -1, "seen has -1, must be at least 0"),
        ("fires", 0, 2, r"coactive\[0, 0\] is 3, must be in 2\.\.=2 as fires"),
        ("coactive", (0, 1), 1, r"coactive\[0, 1\] is 1, \[1, 0\] is 0"),
        ("histogram", (0, 5), 1, r"histogram\[0\] adds up to 4, must be the 3 of fires"),
        ("peak_ptr", 1, 3, r"peak_ptr\[2\] is 2, must be at least 3"),
        ("peak_ptr", 1, 0, r"peak_ptr gives feature 0 0 peaks, fires\[0\] is 3"),
        ("peak_ptr", 2, 5, "peak_ptr goes from 0 to 5, must go from 0 to 2"),
        ("peak_sequence", 1, 0, "peak_sequence of feature 0 has 0 after 0, must ascend"),
        ("peak_sequence", 1, 3, "peak_sequence of feature 0 has 3, which is not in seen"),
        ("peak_position", 0, -1, r"peak_position\[0\] is -1, must be in 0\.\.="),
        ("peak_position", 0, 0, "kept_values of feature 0, sequence 0 have peak -3 at 1, must"),
        ("peak_value", 0, np.nan, r"peak_value\[0\] is NaN, must be finite and not 0"),
        ("peak_value", 1, 0, r"peak_value\[1\] is 0, must be finite and not 0"),
        ("peak_value", 0, 1, "kept_kind of feature 0, sequence 0 is 3, must be 2"),
        ("kept_ptr", 1, -1, r"kept_ptr\[1\] is -1, must be at least 0"),
        ("kept_sequence", 4, 9, "kept_sequence of feature 1 has 9, which is not in seen"),
        ("kept_sequence", 4, 1, "kept_sequence of feature 1 has 1 after 1, must ascend"),
        ("kept_kind", 0, 255, "kept_kind of feature 0, sequence 0 is 255, must be 3"),
        ("kept_kind", 1, 1, "kept_kind of feature 0, sequence 1 is 1, must be 4"),
        ("kept_values_ptr", 1, 3, r"kept_values_ptr\[2\] is 2, must be at least 3"),
        ("kept_values", 0, np.inf, "kept_values has inf, must be finite"),
        ("kept_values", 0, 4, "kept_values of feature 0, sequence 0 have peak 4 at 0, must"),
    ],
)
def test_a_broken_state_is_refused(name, at, value, message):
    state = saved()
    state[name][at] = value
    with pytest.raises(PieFastError, match=message):
        _native.ContextCollector.from_state(state)


def test_more_positions_than_can_be_counted_are_refused():
    state = saved()
    state["counts"][1] = 2**63 - 1
    collector = _native.ContextCollector.from_state(state)
    with pytest.raises(PieFastError, match=r"9223372036854775807 and 3 counted positions are more"):
        collector.add(*batch())
    other = _native.ContextCollector(2, n_top=1, n_sample=2, n_silent=2)
    other.add(*batch())
    with pytest.raises(PieFastError, match="3 and 9223372036854775807 counted positions"):
        other.merge(collector)
    assert same(collector.state(), state)


def test_two_threads_that_merge_into_each_other_come_to_an_end():
    one, other = saved_collector(0), saved_collector(3)
    tries = [Thread(target=merge_quietly, args=pair) for pair in ((one, other), (other, one))]
    for thread in tries:
        thread.start()
    for thread in tries:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert 6 in (one.state()["counts"][0], other.state()["counts"][0])


def merge_quietly(one: Any, other: Any) -> None:
    with contextlib.suppress(PieFastError):  # the second one may find its own sequences
        one.merge(other)


@pytest.mark.parametrize("name", list(saved()))
def test_every_array_of_a_state_must_be_there_with_its_type_and_length(name):
    state = saved()
    array = state.pop(name)
    for change, message in [
        ({}, f"the state has no {name}"),
        ({name: array.astype(np.float64)}, f"{name} must be a {array.ndim}-dimensional"),
        ({name: array[None]}, f"{name} must be a {array.ndim}-dimensional"),
        ({name: array[:-1]}, "must|gives|lacks"),
    ]:
        with pytest.raises(PieFastError, match=message):
            _native.ContextCollector.from_state({**state, **change})
