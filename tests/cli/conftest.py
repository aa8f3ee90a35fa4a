"""One captured dump and one whole run, made once and only read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from running import BUDGET, N_HELD_OUT, N_SELECTION, Outcome, World, run_cli, write_behavior


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
