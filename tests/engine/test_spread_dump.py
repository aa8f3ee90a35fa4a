"""Scores of a dump by the workers of an engine: the bytes of one pass, whatever happens when."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import edit_manifest, make_entries, recut, replace_shard, small_dump, write_dump

from pie_fast import _native, open_dump, spread
from pie_fast.dump import FeatureDump
from pie_fast.engine import LocalEngine
from pie_fast.engine.on_ray import RayEngine
from pie_fast.errors import BudgetError, DumpError, PieFastError, StorageError
from pie_fast.spread import SpreadDump
from running import run_cli

RANK_BY = ["signed", "abs", "mean_abs", "magnitude", "max", "count"]


class Shuffled:
    """Workers of this process that finish in any order."""

    def __init__(self, n_workers: int, seed: int = 0) -> None:
        self.n_workers = n_workers
        self._random = random.Random(seed)

    @contextmanager
    def workers(self, make: Callable[[], Any]) -> Iterator[Shuffled]:
        self._held = make()
        yield self

    def map(
        self, function: Callable[..., Any], items: Iterable[Any], *, ahead: int | None = None
    ) -> Iterator[Any]:
        waiting = dict(enumerate(items))
        order = self._random.sample(sorted(waiting), len(waiting))
        done = {i: function(self._held, waiting[i]) for i in order}
        return (done[i] for i in range(len(done)))

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,300 prompts in four shards: six blocks, the last of them short."""
    columns = make_entries(np.random.default_rng(0), 1300)
    return write_dump(tmp_path_factory.mktemp("large") / "d", columns, shard_bytes=200_000)


def same(dump: FeatureDump, oracle: FeatureDump, rank_by: str, **options: Any) -> None:
    expected = oracle.score(rank_by)
    assert dump.score(rank_by, **options).tobytes() == expected.tobytes()


@settings(max_examples=100)
@given(data=st.data())
def test_any_dump_any_workers(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seed, n = (
        data.draw(st.integers(0, 2**32 - 1)),
        data.draw(st.sampled_from([0, 1, 255, 257, 800])),
    )
    density = data.draw(st.sampled_from([0.0, 0.001, 0.01]))
    columns = make_entries(np.random.default_rng(seed), n, density=density)
    path = write_dump(tmp_path_factory.mktemp("any") / "d", columns, batch=200)
    workers = data.draw(st.sampled_from([1, 2, 4]))
    rank_by = data.draw(st.sampled_from(RANK_BY))
    dump, oracle = SpreadDump(path, Shuffled(workers, seed)), open_dump(path)
    same(dump, oracle, rank_by, threads=data.draw(st.sampled_from([None, 1, 2])))
    k = data.draw(st.integers(0, 30))
    options: dict[str, Any] = data.draw(
        st.sampled_from([{}, {"layers": [2, 0]}, {"min_prompts": 2}, {"per_layer": True}])
    )
    try:
        ids, scores = oracle.top_k(k, rank_by, **options)
    except BudgetError as error:
        with pytest.raises(BudgetError) as raised:
            dump.top_k(k, rank_by, **options)
        assert str(raised.value) == str(error)
    else:
        found = dump.top_k(k, rank_by, **options)
        assert (found[0].tolist(), found[1].tobytes()) == (ids.tolist(), scores.tobytes())


@pytest.mark.parametrize("cuts", [[], [256, 512], [1, 300, 300, 1299]])
def test_shards_in_any_order(large: Path, tmp_path: Path, cuts: list[int]) -> None:
    path = recut(large, tmp_path / "d", cuts)
    shards = open_dump(path).manifest["shards"]
    edit_manifest(path, shards=random.Random(1).sample(shards, len(shards)))
    for workers in (1, 2, 4):
        for rank_by in ("mean_abs", "max"):
            same(SpreadDump(path, Shuffled(workers)), open_dump(large), rank_by)


def test_two_processes(cluster: RayEngine, large: Path) -> None:
    oracle = open_dump(large)
    with SpreadDump(large, cluster) as dump:
        for rank_by in RANK_BY:
            same(dump, oracle, rank_by, threads=2)
        for options in ({}, {"features": [99, 5, 3]}, {"min_prompts": 30}, {"per_layer": True}):
            found, expected = (of.top_k(3, "abs", **options) for of in (dump, oracle))
            assert found[0].tolist() == expected[0].tolist()
            assert found[1].tobytes() == expected[1].tobytes()
        assert dump.active_features().tolist() == oracle.active_features().tolist()


def test_several_ranges_and_runs_by_memory(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "RANGE", 7)
    monkeypatch.setattr(spread, "RUN", 3000)
    for rank_by in RANK_BY:
        same(SpreadDump(large, LocalEngine()), open_dump(large), rank_by)


def spoil(path: Path, shard: int, column: str, entry: int, value: Any) -> None:
    """Overwrite one number of a shard, whose hash then agrees again."""
    file = path / open_dump(path).manifest["shards"][shard]["file"]
    view = open_dump(path).mapped(shard)
    array = getattr(view, column)
    data = bytearray(file.read_bytes())
    begin = bytes(data).index(array.tobytes())
    at = begin + entry * array.itemsize
    data[at : at + array.itemsize] = np.asarray(value, array.dtype).tobytes()
    replace_shard(path, bytes(data), shard)


def test_bad_shards_are_told_as_here(engine: Any, large: Path, tmp_path: Path) -> None:
    path = recut(large, tmp_path / "d", [256, 512, 1024])
    spoil(path, 3, "feature", 3, 4_000_000_000)
    spoil(path, 1, "attribution", 100, np.nan)
    for rank_by, file in (("signed", "part-1"), ("count", "part-3")):
        with pytest.raises(DumpError, match=file) as here:
            open_dump(path).score(rank_by)
        with SpreadDump(path, engine) as dump, pytest.raises(DumpError) as there:
            dump.score(rank_by)
        # Which of two errors is told is a matter of order, not of time.
        assert str(there.value) == str(here.value)


def test_a_missing_shard_is_told_as_here(large: Path, tmp_path: Path, cluster: RayEngine) -> None:
    path = recut(large, tmp_path / "d", [256])
    with SpreadDump(path, cluster) as dump:
        (path / "part-1.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"part-1\.safetensors"):
            dump.score()


def test_what_cannot_be_ranked_is_told_as_here(tmp_path: Path, engine: Any) -> None:
    columns = make_entries(np.random.default_rng(1), 9)
    path = write_dump(tmp_path / "d", {**columns, "attribution": None})
    with SpreadDump(path, engine) as dump:
        with pytest.raises(PieFastError, match="needs attributions, which this dump does not"):
            dump.score("abs")
        with pytest.raises(PieFastError, match='rank_by "best" is not one of signed'):
            dump.score("best")
        with pytest.raises(BudgetError, match=r"budget 121 exceeds the \d+ active features"):
            dump.top_k(121, "max")


def test_another_dump_at_the_path_is_refused(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "d")
    dump = SpreadDump(path, LocalEngine())
    told = spread._Pass(str(path), "0" * 64, "max", 20, str(tmp_path), (0, 1), (0, 120), None)
    with pytest.raises(DumpError, match="sees another"):
        spread._add_up(None, (told, 0))
    assert dump.score("max").any()


def test_scratch_is_seen_by_all_and_left_empty(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "d")
    scratch = tmp_path / "scratch"
    same(SpreadDump(path, LocalEngine(), scratch=str(scratch)), open_dump(path), "abs")
    assert list(scratch.iterdir()) == []
    told = spread._Pass(
        str(path),
        spread._hash_of(path),
        "max",
        20,
        str(tmp_path / "elsewhere"),
        (0, 1),
        (0, 120),
        None,
    )
    for stage in (spread._add_up, spread._join):
        with pytest.raises(StorageError, match="elsewhere: not seen by the worker on"):
            stage(None, (told, 0))


def test_progress_ends_at_the_total(large: Path) -> None:
    seen: list[tuple[int, int]] = []
    dump = SpreadDump(large, LocalEngine())
    dump.score(progress=lambda *of: seen.append(of))
    assert seen[-1] == (dump.n_active, dump.n_active)
    assert len(seen) > 2


def test_blocks_that_do_not_fit_are_refused(large: Path) -> None:
    fold = _native.Fold("max", 10, 20)
    ids, sums = np.array([12, 13], np.uint32), np.ones(2)
    for bad_ids, bad_sums, message in [
        (ids, np.ones(3), "3 sums for 2 features"),
        (ids[::-1].copy(), sums, "feature 12 follows 13: out of order"),
        (ids + np.uint32(7), sums, r"feature 20 is outside \[10, 20\)"),
        (ids, sums * np.nan, "the sum of feature 12 is NaN, must be finite"),
    ]:
        with pytest.raises(PieFastError, match=message):
            fold.add(bad_ids, bad_sums)
    assert not fold.finish(1)[1].any()
    with pytest.raises(PieFastError, match=r"block 6 is outside \[0, 6\)"):
        open_dump(large)._native.block_sums("max", 6)
    with pytest.raises(PieFastError, match=r"features 2\.\.1 are no range"):
        _native.Fold("max", 2, 1)


def test_the_command_line(cluster: RayEngine, large: Path) -> None:
    for command in (("top", large, "-k", 9), ("select", large, "--budget", 9)):
        here = run_cli(*command, "--json")
        there = run_cli(*command, "--engine", "ray", "--workers", 2, "--json")
        assert there.json == here.json
        assert len(here.json["features"]) == 9
        run_cli(*command, "--workers", 2).refused("workers is 2, the local engine has 1")
        run_cli(*command, "--scratch", "x").refused("scratch is 'x', the local engine has none")
