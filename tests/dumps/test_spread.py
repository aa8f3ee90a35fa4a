from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import make_entries, recut, replace_shard, write_dump
from typer.testing import CliRunner

from pie_fast import _native, open_dump
from pie_fast.cli import app
from pie_fast.engine import LocalEngine
from pie_fast.engine.on_ray import RayEngine
from pie_fast.errors import BudgetError, DumpError, PieFastError
from pie_fast.spread import spread_score, spread_top_k

RANK_BY = ["signed", "abs", "mean_abs", "magnitude", "max", "count"]


class Backwards:
    """An engine whose items are done last first."""

    n_workers = 3

    @contextmanager
    def workers(self, make: Any) -> Iterator[Backwards]:
        self.held = make()
        yield self

    def map(self, function: Any, items: Any, *, ahead: int | None = None) -> Iterator[Any]:
        done = {i: function(self.held, item) for i, item in reversed(list(enumerate(items)))}
        return iter([done[i] for i in sorted(done)])

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 prompts: 20 blocks, three runs of them."""
    columns = make_entries(np.random.default_rng(0), 5000, density=0.02)
    return write_dump(tmp_path_factory.mktemp("long") / "d", columns, shard_bytes=100_000)


@pytest.mark.parametrize("rank_by", RANK_BY)
def test_scores_have_the_bytes_of_one_machine(long: Path, engine: Any, rank_by: str) -> None:
    dump = open_dump(long)
    expected = dump.score(rank_by)
    assert expected.any()
    assert spread_score(dump, rank_by, engine=engine).tobytes() == expected.tobytes()
    assert spread_score(dump, rank_by, engine=Backwards()).tobytes() == expected.tobytes()


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_no_byte(
    long: Path, cluster: RayEngine, workers: int
) -> None:
    dump = open_dump(long)
    engine = RayEngine(n_workers=workers, cpus_per_worker=0.5)
    found = spread_score(dump, "signed", engine=engine)
    assert found.tobytes() == dump.score("signed").tobytes()


@settings(max_examples=25, deadline=None)
@given(
    n=st.sampled_from([0, 1, 255, 256, 257, 600]),
    seed=st.integers(0, 99),
    rank_by=st.sampled_from(RANK_BY),
    cuts=st.lists(st.integers(0, 600), max_size=3),
    k=st.integers(0, 130),
    layers=st.none() | st.lists(st.integers(0, 2), min_size=1, max_size=2),
    min_prompts=st.none() | st.integers(0, 40),
    per_layer=st.booleans(),
)
def test_rankings_are_those_of_one_machine(
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    seed: int,
    rank_by: str,
    cuts: list[int],
    k: int,
    **filters: Any,
) -> None:
    folder = tmp_path_factory.mktemp("dump")
    columns = make_entries(np.random.default_rng(seed), n, density=0.01)
    source = write_dump(folder / "a", columns)
    cut = recut(source, folder / "b", sorted(min(cut, n) for cut in cuts)) if n else source
    dump = open_dump(cut)
    outcomes = []
    for rank in (dump.top_k, lambda *a, **f: spread_top_k(dump, *a, engine=LocalEngine(), **f)):
        try:
            ids, scores = rank(k, rank_by, **filters)
            outcomes.append((ids.tolist(), scores.tobytes()))
        except BudgetError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_a_bad_shard_is_named_as_on_one_machine(tmp_path: Path, engine: Any) -> None:
    columns = make_entries(np.random.default_rng(0), 300)
    columns["attribution"][40] = np.nan
    path = tmp_path / "d"
    good = write_dump(tmp_path / "good", {**columns, "attribution": columns["activation"]})
    dump = open_dump(recut(good, path, []))
    whole = bytearray((path / dump.manifest["shards"][0]["file"]).read_bytes())
    header = int.from_bytes(whole[:8], "little")
    at = 8 + header + json.loads(whole[8 : 8 + header])["attribution"]["data_offsets"][0] + 4 * 40
    whole[at : at + 4] = np.float32(np.nan).tobytes()
    replace_shard(path, bytes(whole))
    dump = open_dump(path)
    with pytest.raises(DumpError) as here:
        dump.score("signed")
    with pytest.raises(DumpError) as there:
        spread_score(dump, "signed", engine=engine)
    assert str(there.value) == str(here.value)
    assert "attribution: NaN at entry 40 is not finite" in str(here.value)


def test_another_dump_at_the_same_place_is_refused(long: Path, tmp_path: Path) -> None:
    dump = open_dump(recut(long, tmp_path / "d", []))
    recut(long, tmp_path / "other", [300])
    dump.path = tmp_path / "other"
    with pytest.raises(DumpError, match="shards: are not those that were asked for"):
        spread_score(dump, engine=LocalEngine())


@pytest.mark.parametrize("n", [0, 3])
def test_what_no_dump_has_is_refused(tmp_path: Path, n: int) -> None:
    columns = make_entries(np.random.default_rng(0), n)
    dump = open_dump(write_dump(tmp_path / "d", columns))
    with pytest.raises(PieFastError, match='rank_by "loudness" is not one of'):
        spread_score(dump, "loudness", engine=LocalEngine())
    with pytest.raises(PieFastError, match=r"2 blocks from 0 on, the dump has [01]"):
        dump._native.block_sums("signed", 0, 2)


@pytest.mark.parametrize(
    ("block_ptr", "feature", "sum", "message"),
    [
        ([0, 2], [1], [1.0], "block_ptr must rise from 0 to the 1 features"),
        ([1, 1], [1], [1.0], "block_ptr must rise from 0"),
        ([], [], [], "block_ptr must rise from 0"),
        ([0, 2, 1, 2], [1, 2], [1.0, 1.0], "block_ptr must rise"),
        ([0, 1], [1], [1.0, 2.0], "of which there are 2 sums"),
        ([0, 2], [2, 2], [1.0, 2.0], "feature 2 follows 2 in a block"),
        ([0, 1], [5], [1.0], r"feature 5 is outside \[0, 5\)"),
        ([0, 1], [1], [np.nan], "sum is NaN, must be finite"),
    ],
)
def test_sums_that_cannot_be(block_ptr: Any, feature: Any, sum: Any, message: str) -> None:
    fold = _native.BlockFold(5, "signed")
    with pytest.raises(PieFastError, match=message):
        fold.add(np.array(block_ptr, "i8"), np.array(feature, "u4"), np.array(sum, "f8"))
    assert not fold.score(1).any()  # nothing of it was added


def test_top_on_a_cluster_prints_what_one_machine_does(long: Path, cluster: RayEngine) -> None:
    plain = ["top", str(long), "-k", "7", "--min-prompts", "3", "--json"]
    here = CliRunner().invoke(app, plain)
    there = CliRunner().invoke(app, [*plain, "--engine", "ray", "--workers", "2"])
    assert (here.exit_code, there.exit_code) == (0, 0), there.output
    assert here.stdout == there.stdout
    refused = CliRunner().invoke(app, [*plain, "--workers", "2"])
    assert "workers is 2, the local engine has 1" in str(refused.exception)
