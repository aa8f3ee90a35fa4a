"""The selector study: its arithmetic, and a run of the smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import study_selectors as study
from pie_fast.journal import Journal


def test_every_row_names_a_selector_and_options_that_it_has() -> None:
    names = [row.name for row in study.ROWS]
    assert len(set(names)) == len(names)
    for row in study.ROWS:
        assert set(row.options) <= set(study.SELECTORS[row.method].options), row.name
        assert row.budgets is None or set(row.budgets) <= set(study.BUDGETS)


def test_every_selector_is_in_the_study() -> None:
    assert {row.method for row in study.ROWS} == set(study.SELECTORS)


def test_the_smallest_study(tmp_path: Path) -> None:
    rows = ["FAP |mean|", "FAP mean|.|", "conditional gradient", "conditional gradient, 8 prompts"]
    folder = tmp_path / "study"
    cell = study.Cell("ioi", "counterfactual", 0)
    # one process: what a pool of them does is the same function
    said = study.run_cell(cell, folder, rows, (12, 4, 6))
    assert "4 rows" in said
    assert "nothing to do" in study.run_cell(cell, folder, rows, (12, 4, 6))

    assert [event["row"] for event in Journal(folder).events()] == rows
    found = json.loads((folder / "cells" / cell.name / "conditional-gradient.json").read_text())
    assert found["cost_at_50"] == {"forward": 10.0, "backward": 10.0}
    assert set(map(int, found["points"])) <= set(study.BUDGETS)
    assert all(len(kl) == 10 for kl in found["points"].values())

    marked = tmp_path / "README.md"
    marked.write_text("before\n<!-- table: study -->\nold\n<!-- /table -->\nafter\n")
    study.main([str(folder), "--only-report", "--update", str(marked)])
    text = marked.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "budget saved against FAP mean\\|.\\|" in text
    report = (folder / "report.md").read_text()
    assert "conditional gradient | 10 f + 10 b" in report
    assert "plotly" in (folder / "curves.html").read_text()
