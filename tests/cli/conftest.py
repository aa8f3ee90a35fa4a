"""One captured dump and one whole run, made once and only read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.dump import open_dump
from pie_fast.synergy_matrix import SynergyMatrix
from running import (
    BUDGET,
    DEMO_BUDGET,
    N_HELD_OUT,
    N_SELECTION,
    Outcome,
    World,
    run_cli,
    write_behavior,
)


@pytest.fixture(scope="session")
def world(tiny_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("behaviors")
    return World(*tiny_folders, write_behavior(folder / "some.jsonl", N_SELECTION, N_HELD_OUT))


@pytest.fixture(scope="session")
def captured(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A dump, and what `capture --json` said."""
    path = tmp_path_factory.mktemp("captured") / "dump"
    return path, run_cli("capture", *world.sources, "--out", path, "--json")


@pytest.fixture
def dump(captured: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of the captured dump, to be changed at will."""
    return Path(shutil.copytree(captured[0], tmp_path / "dump"))


@pytest.fixture(scope="session")
def discovered(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run, and what `discover --json` said."""
    path = tmp_path_factory.mktemp("discovered") / "run"
    said = run_cli("discover", *world.sources, "--budget", BUDGET, "--out", path, "--json")
    return path, said


@pytest.fixture(scope="session")
def demo_sources() -> tuple[object, ...]:
    """`--model` and `--clt` of the demo model."""
    return ("--model", demo_model_path(), "--clt", demo_clt_path())


@pytest.fixture(scope="session")
def demo_run(demo_sources: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the demo model on a behaviour of words; only read."""
    run = tmp_path_factory.mktemp("runs") / "ioi"
    small = ("--prompts", 32, "--no-curve", "--stability", 0)
    sources = (*demo_sources, "--behavior", "ioi")
    assert run_cli("discover", *sources, "-k", DEMO_BUDGET, "-o", run, *small).code == 0
    return run


@pytest.fixture(scope="session")
def grouped_run(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with synergies of two groups: its first two features by id, and its last three."""
    run = Path(shutil.copytree(demo_run, tmp_path_factory.mktemp("grouped") / "ioi"))
    features = json.loads((run / "result.json").read_text())["features"]
    width = open_dump(run / "dump").n_features
    pool = np.array(sorted(f["layer"] * width + f["index"] for f in features))
    values = np.full((DEMO_BUDGET, DEMO_BUDGET), -1, np.float32)
    values[:2, :2] = values[3:, 3:] = 5
    matrix = SynergyMatrix.from_dense(
        pool, values, direction="noising", estimator="made", form="signed", n_prompts=1
    )
    matrix.save(run / "dump" / "synergy.safetensors")
    return run
