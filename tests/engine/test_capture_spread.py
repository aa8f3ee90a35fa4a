"""The model side on a real Ray cluster: the bytes do not depend on who did what, or who died."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from model_work import process
from pie_fast.behaviors import Behavior
from pie_fast.capture import capture
from pie_fast.crew import crew_of
from pie_fast.engine.on_ray import RayEngine
from pie_fast.model import Switches
from pie_fast.replacement_model import ReplacementModel
from running import World, contents, run_cli, write_behavior
from torch_prompts import random_prompts

BUDGET = 6

#: of a result, what says how it was asked for, and the sum over it
TOLD = ("command", "checksum")


@pytest.fixture(scope="module")
def world(tiny_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("behaviors")
    return World(*tiny_folders, write_behavior(folder / "some.jsonl", 12, 4))


def result_of(run: Path) -> tuple[str, dict[str, bytes]]:
    """The result but for what it says of this very run, and every other file."""
    files = contents(run)
    found: dict[str, Any] = json.loads(files.pop("result.json"))
    del files["journal.jsonl"]
    for name in TOLD:
        del found[name]
    return json.dumps(found), files


def test_discover_has_the_same_bytes_for_any_number_of_workers(
    cluster: RayEngine, world: World, tmp_path: Path
) -> None:
    small = ("--budget", BUDGET, "--batch-size", 2, "--stability", 2, "--pairs", 2)
    found = {}
    for name, where in (
        ("here", ()),
        ("one", ("--engine", "ray", "--workers", 1)),
        ("two", ("--engine", "ray", "--workers", 2)),
    ):
        said = run_cli("discover", *world.sources, *small, *where, "--out", tmp_path / name)
        assert said.code == 0, said
        found[name] = result_of(tmp_path / name)
    assert found["here"] == found["one"] == found["two"]
    assert "dump/synergy.safetensors" in found["two"][1], "the curve needed synergies"


def test_a_worker_that_is_killed_costs_nothing(
    cluster: RayEngine, tiny_model: ReplacementModel, tmp_path: Path
) -> None:
    behavior = Behavior("random", tuple(random_prompts(24)), ())
    options: dict[str, Any] = {"switches": Switches("mean"), "batch_size": 2}
    killed: list[int] = []
    with crew_of(tiny_model, cluster) as crew:
        pids = set(crew.map(process, None, range(4)))
        assert len(pids) == 2 and os.getpid() not in pids

        def kill(done: int, total: int) -> None:
            if not killed:
                killed.append(pids.pop())
                os.kill(killed[0], signal.SIGKILL)

        capture(tiny_model, behavior, tmp_path / "spread", progress=kill, crew=crew, **options)
        assert killed[0] not in set(crew.map(process, None, range(6)))
    capture(tiny_model, behavior, tmp_path / "here", **options)
    assert contents(tmp_path / "spread") == contents(tmp_path / "here")
