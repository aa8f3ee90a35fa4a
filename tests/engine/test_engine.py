from __future__ import annotations

import sys
from pathlib import Path

import pytest

import engine_work as work
from pie_fast.cli.engines import EngineName
from pie_fast.engine import ENGINES, open_engine
from pie_fast.engine.base import Engine
from pie_fast.engine.on_ray import RayEngine
from pie_fast.errors import DumpError, PieFastError, WorkerError


def test_results_come_in_the_order_of_the_items(engine: Engine) -> None:
    with engine.workers(work.ten) as workers:
        assert list(workers.map(work.slow_first, range(9))) == list(range(10, 19))
        assert list(workers.map(work.add, [])) == []
        assert list(workers.map(work.add, [5], ahead=1)) == [15]


def test_errors_arrive_as_they_were_raised(engine: Engine) -> None:
    with engine.workers(work.ten) as workers:
        found = workers.map(work.refuse_three, range(9))
        assert next(found) == 10
        with pytest.raises(DumpError, match=r"^item 3 is not wanted$"):
            list(found)
        assert list(workers.map(work.add, [1])) == [11]  # they go on working


def test_of_several_errors_the_first_item_s_is_raised(engine: Engine) -> None:
    with (
        engine.workers(work.ten) as workers,
        pytest.raises(DumpError, match=r"^item 0 is not wanted$"),
    ):
        list(workers.map(work.refuse_all, range(4)))


def test_what_cannot_be_made_is_told_as_it_is(engine: Engine) -> None:
    with (
        engine.workers(work.broken) as workers,
        pytest.raises(DumpError, match=r"^shard-0: feature 7 is outside"),
    ):
        list(workers.map(work.add, [1]))


def test_items_are_taken_as_they_are_needed(engine: Engine) -> None:
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    with engine.workers(work.ten) as workers:
        found = workers.map(work.add, items(), ahead=3)
        assert [next(found) for _ in range(5)] == [10, 11, 12, 13, 14]
        assert len(taken) <= 5 + 3
        found.close()  # type: ignore[attr-defined]


def test_two_workers_are_two_processes(cluster: RayEngine) -> None:
    with cluster.workers(work.ten) as workers:
        assert len(set(workers.map(work.process, range(6)))) == 2


def test_a_worker_that_is_killed_is_replaced(cluster: RayEngine, tmp_path: Path) -> None:
    with cluster.workers(work.ten) as workers:
        found = list(workers.map(work.die_once, [(tmp_path, i) for i in range(6)]))
    assert found == list(range(10, 16))
    assert (tmp_path / "2").exists()


def test_a_worker_that_has_room_nowhere_is_not_waited_for(
    cluster: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster.workers(work.ten) as workers:
        list(workers.map(work.process, range(4)))
        monkeypatch.setattr(workers, "room", lambda: 1)  # as where a host was lost with it
        found = list(workers.map(work.die_once, [(tmp_path, i) for i in range(6)]))
        assert found == list(range(10, 16))
        assert len(set(workers.map(work.process, range(4)))) == 1


def test_an_item_that_kills_every_worker_is_named(cluster: RayEngine) -> None:
    with (
        cluster.workers(work.ten) as workers,
        pytest.raises(WorkerError, match=r"^item 0: 4 workers were lost on it, the last died"),
    ):
        list(workers.map(work.die, [7]))


def test_a_worker_that_hangs_is_replaced(cluster: RayEngine, tmp_path: Path) -> None:
    impatient = RayEngine(n_workers=2, timeout=3)
    with impatient.workers(work.ten) as workers:
        found = list(workers.map(work.hang_once, [(tmp_path, i) for i in range(4)]))
    assert found == list(range(10, 14))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"name": "spark"}, "engine is 'spark', must be one of local, ray"),
        ({"workers": 2}, "workers is 2, the local engine has 1"),
        ({"address": "auto"}, "address is 'auto', the local engine has none"),
        ({"name": "ray", "workers": 0}, "workers is 0, must be at least 1"),
        ({"name": "ray", "cpus_per_worker": 0}, "cpus_per_worker is 0, must be above 0"),
        ({"name": "ray", "timeout": -1.0}, "timeout is -1.0, must be above 0"),
        ({"name": "ray", "gpus_per_worker": -1}, "gpus_per_worker is -1, must be at least 0"),
    ],
)
def test_engines_that_there_are_not(how: dict[str, object], message: str) -> None:
    with pytest.raises(PieFastError, match=message):
        open_engine(**how)  # type: ignore[arg-type]


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PieFastError, match=r"pip install 'pie-fast\[ray\]'"):
        open_engine("ray")


def test_the_command_line_names_all_of_them() -> None:
    assert tuple(EngineName) == ENGINES
