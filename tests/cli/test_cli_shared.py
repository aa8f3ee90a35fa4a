"""`pie-fast shared`: what it prints and writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from killing import stop_at
from pie_fast.journal import spent_by
from pie_fast.run_files import JOURNAL
from running import World, contents, run_cli, write_behavior, written


def test_the_command(world: World, tmp_path: Path) -> None:
    other = write_behavior(tmp_path / "other.jsonl", 4, 3, seed=9)
    options = ("shared", *world.sources, "-b", other, "-k", 6, "-o", tmp_path / "run")
    result = run_cli(*options, "--objective", "worst", "--json").json
    assert [row["name"] for row in result["behaviors"]] == [world.behavior.name, other.name]
    assert result["settings"]["objective"] == "worst" and result["front"] == []
    assert result.pop("folder") == str(tmp_path / "run")
    spent = spent_by(tmp_path / "run", "shared")
    assert written(tmp_path / "run" / "result.json") | spent == result
    run_cli(*options).refused(tmp_path / "run", "--force")
    printed = run_cli(*options, "--force", "--objective", "pareto", "--front-steps", 1)
    assert printed.code == 0, printed.stderr
    for told in ("on the front", "serve more than one behaviour", "price"):
        assert told in printed.stdout
    run_cli(*options, "--force", "--weight", 1).refused("weights [1.0]", "2 behaviours")


def test_a_run_that_was_stopped_is_resumed(world: World, tmp_path: Path) -> None:
    other, out = write_behavior(tmp_path / "other.jsonl", 4, 3, seed=9), tmp_path / "run"
    options = ("shared", *world.sources, "-b", other, "-k", 6, "-o", out)
    front = (*options, "--objective", "pareto", "--front-steps", 2)
    assert run_cli(*front).code == 0
    expected = contents(out)
    shutil.rmtree(out)
    said, stops = stop_at(2, *front), 0
    while said.code == 130:
        stops += 1
        run_cli(*options, "--resume").refused("objective is 'weighted', was 'pareto'")
        said = stop_at(2, "resume", out)
    assert said.code == 0 and stops > 2, said.stderr
    found = contents(out)
    del found[JOURNAL], expected[JOURNAL]
    assert found == expected
