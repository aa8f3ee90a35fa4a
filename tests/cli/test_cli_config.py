"""A run leaves its options behind, and `--config` repeats it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
import tomlkit

from running import BUDGET, Outcome, World, run_cli

SAME = ("features", "interpretations", "ablation", "evaluation", "curves", "settings", "cost")


def test_a_run_is_repeated_by_its_file(discovered: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, said = discovered
    file = folder / "run.toml"
    again = run_cli("discover", "--config", file, "--out", tmp_path / "again", "--json")
    for key in SAME:
        assert again.json[key] == said.json[key], key
    assert (tmp_path / "again" / "run.toml").read_bytes() == file.read_bytes()


def test_what_is_in_the_file(discovered: tuple[Path, Outcome], world: World) -> None:
    folder, said = discovered
    text = (folder / "run.toml").read_text()
    content = tomllib.loads(text)
    assert content["model"] == str(world.model) and content["budget"] == BUDGET
    assert (content["curve"], content["seed"], content["pool-factor"]) == (True, 0, 4.0)
    assert not {"out", "force", "resume", "json", "config", "quiet", "verbose"} & set(content)
    assert "metric" not in content, "TOML has no null"
    lines = text.splitlines()
    for key in content:
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{key} = ")]
        assert lines[at - 1].startswith("# "), "what it is"
    command = said.json["command"]
    assert command[:2] == ["pie-fast", "discover"] and str(world.clt) in command
    assert "argv" not in command and sys.argv != command


def test_the_command_line_wins(world: World, tmp_path: Path) -> None:
    file = write(tmp_path, world, budget=7, curve=False, stability=0, method="relp")
    options = ("-k", 3, "--method", "fap", "--json")
    said = run_cli("discover", "--config", file, "--out", tmp_path / "run", *options)
    assert len(said.json["features"]) == 3 and said.json["settings"]["method"] == "fap"
    assert said.json["curves"] == {}
    kept = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    assert (kept["budget"], kept["method"], kept["stability"]) == (3, "fap", 0)


def write(folder: Path, world: World, **more: object) -> Path:
    """A file with all that is required, and more."""
    of_world = {"model": world.model, "clt": world.clt, "behavior": world.behavior}
    content = {**{key: str(value) for key, value in of_world.items()}, "budget": 5, **more}
    path = folder / "some.toml"
    path.write_text(tomlkit.dumps({key.replace("_", "-"): v for key, v in content.items()}))
    return path


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("bugdet", 5, ["unknown key 'bugdet'", "did you mean 'budget'?"]),
        ("zzz", 5, ["unknown key 'zzz'", "there are address, "]),
        ("stability", "ten", ["stability = 'ten'", "must be an integer"]),
        ("stability", True, ["stability = True", "must be an integer"]),
        ("stability", -1, ["stability = -1", "must be at least 0"]),
        ("budget", 0, ["budget = 0", "must be at least 1"]),
        ("budget", "all", ["budget = 'all'", "'auto' or 'knee'"]),
        ("budget", 2.5, ["budget = 2.5", "must be a string or an integer"]),
        ("pool_factor", 0.5, ["pool-factor = 0.5", "at least 1"]),
        ("pool_factor", "4", ["pool-factor = '4'", "must be a number"]),
        ("curve", 1, ["curve = 1", "must be true or false"]),
        ("method", "fab", ["method = 'fab'", "'fap'", "'masks'"]),
        ("model", 3, ["model = 3", "must be a string"]),
        ("method_option", "steps=3", ["method-option = 'steps=3'", "must be a list"]),
        ("method_option", [3], ["method-option = [3]", "must be a string"]),
        ("ignore_positions", "some", ["ignore-positions = 'some'", "circuit-tracer"]),
        ("options", {"seed": 1}, ["unknown key 'options'"]),
    ],
)
def test_bad_files(world: World, tmp_path: Path, key: str, value: object, parts: list[str]) -> None:
    file = write(tmp_path, world, **{key: value})
    said = run_cli("discover", "--config", file, "--out", tmp_path / "run")
    said.refused(file, *parts)
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    run_cli("discover", "--config", path, "--out", tmp_path / "run").refused(path, "No such file")
    path.write_text("budget: 5\n")
    run_cli("discover", "--config", path, "--out", tmp_path / "run").refused(path, "not valid TOML")
    path.write_bytes(b'model = "\xff"\n')
    run_cli("discover", "--config", path, "--out", tmp_path / "run").refused(path, "not valid TOML")
    path.write_text("budget = 5\n")
    said = run_cli("discover", "--config", path, "--out", tmp_path / "run")
    said.refused("Missing option", "pie-fast discover --help")
