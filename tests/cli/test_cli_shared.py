"""`pie-fast shared`: what it prints and writes."""

from __future__ import annotations

from pathlib import Path

from running import World, run_cli, write_behavior, written


def test_the_command(world: World, tmp_path: Path) -> None:
    other = write_behavior(tmp_path / "other.jsonl", 4, 3, seed=9)
    options = ("shared", *world.sources, "-b", other, "-k", 6, "-o", tmp_path / "run")
    result = run_cli(*options, "--objective", "worst", "--json").json
    assert [row["name"] for row in result["behaviors"]] == [world.behavior.name, other.name]
    assert result["settings"]["objective"] == "worst" and result["front"] == []
    assert result.pop("folder") == str(tmp_path / "run")
    assert written(tmp_path / "run" / "result.json") == result
    run_cli(*options).refused(tmp_path / "run", "--force")
    printed = run_cli(*options, "--force", "--objective", "pareto", "--front-steps", 1)
    assert printed.code == 0, printed.stderr
    for told in ("on the front", "serve more than one behaviour", "price"):
        assert told in printed.stdout
    run_cli(*options, "--force", "--weight", 1).refused("weights [1.0]", "2 behaviours")
