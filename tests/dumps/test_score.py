from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import cut, make_entries, recut, small_dump, write_dump

from pie_fast import open_dump, twin_dump
from pie_fast.errors import BudgetError, PieFastError

RANK_BY = ["signed", "abs", "mean_abs", "magnitude", "max", "count"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,300 prompts in four shards: several blocks, the last of them short."""
    columns = make_entries(np.random.default_rng(0), 1300)
    return write_dump(tmp_path_factory.mktemp("large") / "d", columns, shard_bytes=200_000)


@pytest.mark.parametrize("rank_by", RANK_BY)
def test_scores_are_the_twin_s_bytes(large: Path, rank_by: Any) -> None:
    expected = twin_dump.score(large, rank_by)
    assert expected.any()
    for threads in (1, 2, 3, 8, None):
        assert open_dump(large).score(rank_by, threads=threads).tobytes() == expected.tobytes()


@pytest.mark.parametrize("rank_by", RANK_BY)
def test_shards_change_no_byte(large: Path, tmp_path: Path, rank_by: Any) -> None:
    expected = open_dump(large).score(rank_by).tobytes()
    for i, cuts in enumerate(
        [[], [256], [1, 2, 3], [100, 400, 400, 1299], list(range(1, 1300, 7))]
    ):
        dump = open_dump(recut(large, tmp_path / str(i), cuts))
        assert dump.score(rank_by, threads=2).tobytes() == expected
        assert dump.active_features().tolist() == open_dump(large).active_features().tolist()


@pytest.mark.parametrize("rank_by", RANK_BY)
@pytest.mark.parametrize("k", [0, 1, 7, 100])
def test_top_k_is_the_twin_s(large: Path, rank_by: Any, k: int) -> None:
    ids, scores = open_dump(large).top_k(k, rank_by)
    twin_ids, twin_scores = twin_dump.top_k(large, k, rank_by)
    assert ids.tolist() == twin_ids.tolist()
    assert scores.tobytes() == twin_scores.tobytes()
    assert (ids.dtype, scores.dtype) == (np.int64, np.float64)


@settings(max_examples=1000, deadline=None)
@given(data=st.data())
def test_any_small_dump(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    n_ids, length = 12, 3
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, 3e38, -3e38, 0.1, 1 / 3])
    prompt = st.dictionaries(
        st.tuples(st.integers(0, n_ids - 1), st.integers(0, length - 1)),
        st.tuples(values, values),
        max_size=10,
    )
    prompts = data.draw(st.lists(prompt, max_size=6))
    rank_by: Any = data.draw(st.sampled_from(RANK_BY))
    entries = [sorted(p.items()) for p in prompts]
    flat = [entry for p in entries for entry in p]
    columns = {
        "prompt_ptr": np.cumsum([0, *map(len, entries)]),
        "feature": np.array([f for (f, _), _ in flat], np.uint32),
        "position": np.array([p for (_, p), _ in flat], np.uint32),
        "activation": np.array([a for _, (a, _) in flat], np.float32),
        "attribution": np.array([g for _, (_, g) in flat], np.float32),
    }
    path = tmp_path_factory.mktemp("any") / "d"
    write_dump(path, columns, length=length, manifest={"n_layers": 3, "n_features": 4})
    dump = open_dump(path)
    expected = twin_dump.score(path, rank_by)
    # The largest sums are far below what f64 holds: nothing here may overflow.
    assert np.isfinite(expected).all()
    threads = data.draw(st.integers(1, 3))
    assert dump.score(rank_by, threads=threads).tobytes() == expected.tobytes()
    n = len(np.unique(columns["feature"]))
    k = data.draw(st.integers(0, n))
    ids, scores = dump.top_k(k, rank_by, threads=threads)
    twin_ids, twin_scores = twin_dump.top_k(path, k, rank_by)
    assert ids.tolist() == twin_ids.tolist()
    assert scores.tobytes() == twin_scores.tobytes()
    message = f"budget {n + 1} exceeds the {n} active features"
    for top_k in (dump.top_k, lambda *args: twin_dump.top_k(path, *args)):
        with pytest.raises(BudgetError, match=message):
            top_k(n + 1, rank_by)


def test_the_definitions_by_hand(tmp_path: Path) -> None:
    columns = {
        "prompt_ptr": [0, 3, 5],
        "feature": [1, 1, 2, 1, 7],
        "position": [0, 1, 0, 2, 0],
        "activation": [1.0, 0.5, 0.0, 2.0, 0.0],
        "attribution": [3.0, -5.0, 1.0, 4.0, 0.0],
    }
    columns = {name: np.array(values) for name, values in columns.items()}
    dump = open_dump(write_dump(tmp_path / "d", columns))
    by_hand = {
        "signed": {1: 1.0, 2: 0.5},
        "abs": {1: 1.0, 2: 0.5},
        "mean_abs": {1: 3.0, 2: 0.5},
        "magnitude": {1: 1.75},
        "max": {1: 2.0},
        "count": {1: 2.0},
    }
    for rank_by, expected in by_hand.items():
        scores = dump.score(rank_by)  # type: ignore[arg-type]
        assert {int(i): scores[i] for i in np.flatnonzero(scores)} == expected
    assert dump.active_features().tolist() == [1]
    # Features 2 and 7 have entries (their baseline is not zero): candidates, though never active.
    assert dump.top_k(3)[0].tolist() == [1, 2, 7]
    assert dump.top_k(3, "max")[0].tolist() == [1, 2, 7]


def test_filters(large: Path) -> None:
    dump = open_dump(large)
    everything, scores = dump.top_k(120)
    rank = dict(zip(everything.tolist(), scores.tolist(), strict=True))
    assert len(rank) == 120
    counts = dump.score("count")

    def expect(keep: Any, k: int, **filters: Any) -> None:
        wanted = [i for i in everything.tolist() if keep(i)]
        assert dump.top_k(k, **filters)[0].tolist() == wanted[:k]
        with pytest.raises(BudgetError, match=f"exceeds the {len(wanted)} active features that"):
            dump.top_k(len(wanted) + 1, **filters)

    expect(lambda i: 40 <= i < 80, 10, layers=[1])
    expect(lambda i: i >= 80 or i < 40, 30, layers=[2, 0, 2])
    expect(lambda i: i in (5, 99, 3), 2, features=[99, 5, 3, 5])
    middle = int(np.median(counts))
    expect(lambda i: counts[i] >= middle, 20, min_prompts=middle)
    expect(lambda i: i >= 80 and counts[i] >= middle, 3, min_prompts=middle, layers=[2])
    ids, _ = dump.top_k(4, per_layer=True)
    assert ids.tolist() == [
        i for layer in range(3) for i in [i for i in everything.tolist() if i // 40 == layer][:4]
    ]
    with pytest.raises(PieFastError, match=r"layer 3 is outside \[0, 3\)"):
        dump.top_k(1, layers=[3])
    with pytest.raises(PieFastError, match=r"feature id 120 is outside \[0, 120\)"):
        dump.top_k(1, features=[120])


@pytest.mark.parametrize("features", [[], [7], [119, 0, 50, 50]])
def test_entries_of_features(large: Path, features: list[int]) -> None:
    dump = open_dump(large)
    all_ = dump.entries(0, dump.n_prompts)
    keep = np.isin(all_.feature, features)
    prompt = np.repeat(np.arange(dump.n_prompts), np.diff(all_.prompt_ptr))
    found = dump.entries_of(features)
    np.testing.assert_array_equal(found.prompt, prompt[keep])
    for name in ("feature", "position", "activation", "attribution"):
        np.testing.assert_array_equal(getattr(found, name), getattr(all_, name)[keep])
    with pytest.raises(PieFastError, match=r"feature id -1 is outside"):
        dump.entries_of([-1])


def test_prompts_out_of_range(large: Path) -> None:
    dump = open_dump(large)
    assert dump.entries(1300, 0).prompt_ptr.tolist() == [0]
    for first, n in [(1300, 1), (0, 1301)]:
        with pytest.raises(PieFastError, match="outside the 1300 prompts"):
            dump.entries(first, n)
    with pytest.raises(PieFastError, match="first_prompt is -1, must be at least 0"):
        dump.entries(-1, 1)


def test_wrong_arguments(large: Path) -> None:
    dump = open_dump(large)
    with pytest.raises(PieFastError, match='rank_by "best" is not one of signed, abs, mean_abs'):
        dump.score("best")  # type: ignore[arg-type]
    with pytest.raises(PieFastError, match=r"threads is 0, must be in \[1, 1024\]"):
        dump.score(threads=0)
    with pytest.raises(PieFastError, match=r"threads is -1, must be in \[1, 1024\]"):
        dump.active_features(threads=-1)
    for k, valid in [(-1, "at least 0"), (10**30, "less than 2^63")]:
        with pytest.raises(BudgetError, match=re.escape(f"k is {k}, must be {valid}")):
            dump.top_k(k)
    with pytest.raises(PieFastError, match="layer is -1, must be at least 0"):
        dump.top_k(1, layers=[-1])
    with pytest.raises(PieFastError, match=f"min_prompts is {10**30}, must be less"):
        dump.top_k(1, min_prompts=10**30)
    with pytest.raises(TypeError, match=r"k is 1\.5, must be a whole number"):
        dump.top_k(1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="threads is 'all', must be a whole number"):
        dump.score(threads="all")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layer is None, must be a whole number"):
        dump.top_k(1, layers=[None])  # type: ignore[list-item]


def test_without_attributions(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(1), 9)
    dump = open_dump(write_dump(tmp_path / "d", {**columns, "attribution": None}))
    assert not dump.has_attribution
    assert dump.entries(0, 9).attribution is None
    assert dump.entries_of([1]).attribution is None
    for rank_by in ("magnitude", "max", "count"):
        expected = twin_dump.score(tmp_path / "d", rank_by)
        assert dump.score(rank_by).tobytes() == expected.tobytes()  # type: ignore[arg-type]
    for rank_by in ("signed", "abs", "mean_abs"):
        with pytest.raises(PieFastError, match="needs attributions, which this dump does not"):
            dump.score(rank_by)  # type: ignore[arg-type]


def test_progress_ends_at_the_total_and_its_error_comes_through(large: Path) -> None:
    dump = open_dump(large)
    seen: list[tuple[int, int]] = []
    dump.score(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (dump.n_active, dump.n_active)

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dump.score(progress=stop)


def test_the_gil_is_free_meanwhile(tmp_path: Path) -> None:
    """Another thread counts while a scan runs."""
    columns = make_entries(np.random.default_rng(2), 256, density=0.5)
    dump = open_dump(write_dump(tmp_path / "d", columns))
    running, ticks = True, 0

    def count() -> None:
        nonlocal ticks
        while running:
            ticks += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = ticks
        for _ in range(50):
            dump.score(threads=1)
        assert ticks > before
    finally:
        running = False
        thread.join()


def test_a_slice_of_a_dump_is_its_prompts(large: Path, tmp_path: Path) -> None:
    """The mean runs over the prompts of the dump, those without entries included."""
    columns = make_entries(np.random.default_rng(0), 1300)
    half = open_dump(write_dump(tmp_path / "d", cut(columns, 0, 512)))
    doubled = {**cut(columns, 0, 512)}
    doubled["prompt_ptr"] = np.concatenate(
        [doubled["prompt_ptr"], np.full(512, doubled["prompt_ptr"][-1])]
    )
    padded = open_dump(write_dump(tmp_path / "e", doubled))
    np.testing.assert_array_equal(padded.score() * 2, half.score())


def test_small_helper_makes_readable_dumps(tmp_path: Path) -> None:
    assert open_dump(small_dump(tmp_path / "d")).n_active > 0
