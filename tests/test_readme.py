"""The README does what it says: its Python runs, its commands and files exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_python_blocks_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks("python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    fidelity = float(printed.split()[0])
    assert 0.2 < fidelity <= 1, printed


def test_json_blocks_are_behaviours(tmp_path: Path) -> None:
    found = blocks("json")
    assert found
    for block in found:
        assert {"prompt", "answer"} <= set(json.loads(block))


def test_commands_exist() -> None:
    from typer.main import get_command

    from pie_fast.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"pie-fast (\w+)", README)) | {"top", "merge", "convert"}
    assert named <= known
    table = re.findall(r"^\| `pie-fast ([^|]+)\|", README, flags=re.M)
    assert len(table) >= 5, "the table of commands has moved"


def test_ci_reads_its_commands_out_of_the_readme() -> None:
    for name in ("demo", "test"):
        assert f"<!-- command: {name} -->\n```sh\n" in README


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([\w./-]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
