"""A run that was killed is finished by `pie-fast resume`, in the bytes of one that was not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from killing import kill_at, same_threads, stop_at
from pie_fast.journal import Journal, locked, unfinished
from pie_fast.run_files import JOURNAL
from running import World, contents, run_cli

#: methods, budgets and what else decides which stages there are
PLANS: dict[str, tuple[object, ...]] = {
    "growth": ("-k", 12, "--pairs", 3),
    "budget": ("-k", "auto", "--target-fidelity", 0.3, "--stability", 2),
    "synergy": ("-k", 4, "--method", "fap-synergy", "--stability", 2),
    "registry": ("-k", "auto", "--target-fidelity", 0.3, "--method", "fap-ig", "--no-curve"),
}

KILLS = (
    ("shard-00000.safetensors", 1, False),
    ("growths.json", 2, True),
    ("curves.json", 1, False),
)


def results(folder: Path) -> dict[str, bytes]:
    """All files but the journal."""
    return {name: found for name, found in contents(folder).items() if name != JOURNAL}


def command_of(world: World, out: Path, *plan: object) -> tuple[object, ...]:
    return ("discover", *world.sources, *plan, "--out", out, "--quiet")


def whole(world: World, out: Path, *plan: object) -> dict[str, bytes]:
    """What a run that nothing stops leaves; it is removed."""
    said = run_cli(*command_of(world, out, *plan))
    assert said.code == 0, said.stderr
    found = results(out)
    shutil.rmtree(out)
    return found


def test_killed_again_and_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.behavior.parent)
    out, partial = tmp_path / "run", tmp_path / "run.partial"
    sources = (*world.model_and_clt, "--behavior", world.behavior.name)
    command = ("discover", *sources, "-k", 12, "--stability", 1, "--out", out)
    assert run_cli(*command).code == 0
    expected = results(out)
    shutil.rmtree(out)
    monkeypatch.chdir(tmp_path)  # paths are those of where the run was begun
    for i, (name, n, is_whole) in enumerate(KILLS):
        again = ("resume", out)
        if i == 0:
            monkeypatch.chdir(world.behavior.parent)
            again = command
        kill_at(name, n, *again, whole=is_whole)
        monkeypatch.chdir(tmp_path)
        assert not out.exists()
        left = [path.name for path in partial.rglob(".*.tmp")]
        assert len(left) == (not is_whole), left
    said = run_cli("resume", out, "--json")
    assert said.json["command"] == json.loads(expected["result.json"])["command"]
    assert results(out) == expected
    events = [event["event"] for event in Journal(out).events()]
    assert events.count("begun") == 1 and events.count("resumed") == len(KILLS)
    assert events[-1] == "finished"
    assert run_cli("resume", out).stdout == f"{out} is complete: there is nothing to resume\n"
    assert run_cli("resume", out, "--json").json["resumed"] == []


@pytest.mark.parametrize("plan", PLANS)
def test_stopped_after_every_few_writes(world: World, tmp_path: Path, plan: str) -> None:
    out = tmp_path / "run"
    expected = whole(world, out, *PLANS[plan])
    stops = 0
    said = stop_at(4, *command_of(world, out, *PLANS[plan]))
    while said.code == 130:
        stops += 1
        said = stop_at(4, "resume", out)
    assert said.code == 0, said.stderr
    assert stops > 2
    assert results(out) == expected


def test_another_plan_keeps_the_capture_only(world: World, tmp_path: Path) -> None:
    out, other = tmp_path / "run", ("-k", 6, "--missed", 8)
    expected = whole(world, out, *other)
    assert stop_at(6, *command_of(world, out, "-k", 5)).code == 130
    shard = tmp_path / "run.partial" / "dump" / "shard-00000.safetensors"
    written = shard.stat().st_ino
    loud = [one for one in command_of(world, out, *other) if one != "--quiet"]
    said = run_cli(*loud, "--resume")
    assert said.code == 0
    assert "plan.budget is 6, was 5; plan.missed is 8, was 0" in " ".join(said.stderr.split())
    assert (out / "dump" / shard.name).stat().st_ino == written, "captured once"
    found = results(out)
    for files in (found, expected):
        result = json.loads(files.pop("result.json"))
        del result["command"], result["checksum"]
        files["result.json"] = json.dumps(result).encode()
    assert found == expected


def test_a_broken_journal_is_named(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert stop_at(6, *command_of(world, out, "-k", 5)).code == 130
    path = out.with_name("run.partial") / JOURNAL
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace('"n', '"m'), *lines[1:]]) + "\n")
    run_cli("resume", out).refused(path, "line 1 is broken")


def test_another_version_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert stop_at(6, *command_of(world, out, "-k", 5)).code == 130
    monkeypatch.setattr("pie_fast.identity.pie_fast_version", "9.9.9")
    run_cli("resume", out).refused("versions.pie-fast is '9.9.9', was")


def test_two_processes_on_one_run(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert stop_at(6, *command_of(world, out, "-k", 5)).code == 130
    partial = tmp_path / "run.partial"
    with locked(partial):
        before = contents(tmp_path)
        run_cli("resume", out).refused(partial, f"in use by process {os.getpid()}")
        run_cli(*command_of(world, out, "-k", 5), "--force").refused(partial, "in use by process")
        assert contents(tmp_path) == before
    assert run_cli("resume", out, "--quiet").code == 0


def test_only_the_rename_was_missing(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_cli(*command_of(world, out, "-k", 3, "--no-curve")).code == 0
    expected = contents(out)
    out.rename(tmp_path / "run.partial")
    assert run_cli("resume", out).code == 0
    assert contents(out) == expected


def test_what_cannot_be_resumed_says_why(tmp_path: Path, world: World) -> None:
    run_cli("resume", tmp_path / "none").refused("none is not a run")
    (tmp_path / "old.partial").mkdir()
    run_cli("resume", tmp_path / "old").refused("does not say what began it", "--resume")


def test_an_interpretation_is_finished(demo_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(demo_run, tmp_path / "ioi"))
    command = ("interpret", run, "--steered", 2, "--seed", 3, "--quiet")
    assert run_cli(*command).code == 0
    expected = results(run)
    shutil.rmtree(run)
    shutil.copytree(demo_run, run)
    said, stops = stop_at(1, *command), 0
    while said.code == 130:
        stops += 1
        assert [event["name"] for event in unfinished(Journal(run))] == ["interpret"]
        said = stop_at(2, "resume", run)
    assert said.code == 0, said.stderr
    begun = [one["stage"] for one in Journal(run).events() if one.get("state") == "begun"]
    assert begun[-2:] == ["edges", "quality"] and begun.count("edges") == 1, "measured once"
    assert stops > 1
    assert results(run) == expected
    said = json.loads((run / "interpretation.json").read_text())
    assert said["settings"]["seed"] == 3 and said["command"][:2] == ["pie-fast", "interpret"]


def test_another_process_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = command_of(world, out, "-k", 5, "--stability", 2)
    subprocess.run(
        [sys.executable, "-m", "pie_fast.cli", *map(str, command)],
        check=True,
        capture_output=True,
        env=same_threads(),
    )
    found = results(out)
    shutil.rmtree(out)
    assert run_cli(*command).code == 0
    assert results(out) == found and "result.json" in found
