"""`--ignore-positions` of the commands that run a model: recorded, and taken over from a dump."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pie_fast.dump import open_dump
from pie_fast.replacement_model import load_model
from running import Outcome, World, run_cli


def test_it_is_auto_by_default(
    captured: tuple[Path, Outcome], discovered: tuple[Path, Outcome]
) -> None:
    assert open_dump(captured[0]).manifest["ignore_positions"] == "auto"
    assert discovered[1].json["settings"]["ignore_positions"] == "auto"


@pytest.mark.parametrize(("given", "recorded"), [("3", 3), ("circuit-tracer", "circuit-tracer")])
def test_manifest_and_results_record_it(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    recorded: int | str,
) -> None:
    option = ("--ignore-positions", given)
    out = tmp_path / "run"
    said = run_cli(
        "discover", *world.sources, "--budget", 3, "--no-curve", "--out", out, *option, "--json"
    ).json
    assert said["settings"]["ignore_positions"] == recorded
    dump = open_dump(out / "dump")
    assert dump.manifest["ignore_positions"] == recorded
    judged = run_cli(
        "evaluate", *world.sources, "--features", out / "result.json", *option, "--json"
    ).json
    assert judged["ignore_positions"] == recorded
    asked: list[object] = []

    def noting(*args: object, **kwargs: object) -> object:
        asked.append(kwargs["ignore_positions"])
        return load_model(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("pie_fast.replacement_model.load_model", noting)
    run_cli("synergy", out / "dump", *world.model_and_clt, "--pool", 4, "--force", "--json")
    assert asked == [recorded], "synergy goes by what the dump was captured with"
    assert json.loads((out / "result.json").read_text())["settings"]["ignore_positions"] == recorded


def test_other_values_are_refused(world: World, tmp_path: Path) -> None:
    for command in ("discover", "capture"):
        extra = ("--budget", 3) if command == "discover" else ()
        done = run_cli(
            command, *world.sources, *extra, "--out", tmp_path / "x", "--ignore-positions", "bos"
        )
        done.refused("ignore_positions is 'bos'", "auto, circuit-tracer or a number")
