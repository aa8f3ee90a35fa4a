"""The command behind the paper's tables: its arithmetic, and a run of the smallest size."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import paper_tables as tables


def test_the_budget_that_reaches_a_divergence() -> None:
    curve = {20: (0.0, 2.0), 30: (0.0, 1.0), 40: (50.0, 0.5), 50: (70.0, 0.3)}
    assert tables.budget_reached(curve, 1.0) == 30
    assert tables.budget_reached(curve, 0.75) == 35
    assert tables.budget_reached(curve, 3.0) == 20, "already below it at the first K"
    assert tables.budget_reached(curve, 0.1) is None


def test_the_papers_cost_table_follows_from_its_fidelities() -> None:
    ioi = tables.PAPER["ioi"]
    assert ioi["FAP"][75] == ioi["FAP-Synergy"][50] == 78.9


def test_the_smallest_run_fills_the_markers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: paper -->old<!-- /table -->\nafter\n")
    sizes = "--seeds 2 --behavior ioi --prompts 4 --held-out 4 --synergy-prompts 2"
    arguments = f"{sizes} --pool 60 --grow 75 --update {page}".split()
    monkeypatch.setattr(sys, "argv", ["paper_tables.py", *arguments])
    tables.main()
    printed = capsys.readouterr().out
    text = page.read_text()
    assert text == f"before\n{printed.strip()}\nafter\n"
    rows = {
        line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:]
        for line in text.splitlines()
        if re.match(r"\| (FAP|conditional)", line)
    }
    assert list(rows) == [row.name for row in tables.ROWS]
    for cells in rows.values():
        assert re.fullmatch(r"\d+\.\d ± \d+\.\d( \(KL \d+\.\d\))?", cells[0])
    assert text.count("| IOI | ") == len(tables.SYNERGIES) + 1
    assert "in the paper +6.6, +4.1" in text


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing to fill\n")
    with pytest.raises(SystemExit, match="0 times, not once"):
        tables.update(page, "paper", "text")
    assert page.read_text() == "nothing to fill\n"
