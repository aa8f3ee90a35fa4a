"""The selector study: its arithmetic, and a run of the smallest size."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    before = list(sys.path)
    path = ROOT / "examples" / "study_selectors.py"
    spec = importlib.util.spec_from_file_location("study_selectors", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["study_selectors"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["study_selectors"]
    sys.path[:] = before


def test_every_row_names_a_selector_and_options_that_it_has(study: ModuleType) -> None:
    names = [row.name for row in study.ROWS]
    assert len(set(names)) == len(names)
    for row in study.ROWS:
        assert set(row.options) <= set(study.SELECTORS[row.method].options), row.name
        assert row.budgets is None or set(row.budgets) <= set(study.BUDGETS)


def test_every_selector_is_in_the_study(study: ModuleType) -> None:
    assert {row.method for row in study.ROWS} == set(study.SELECTORS)


def test_the_smallest_study(study: ModuleType, tmp_path: Path) -> None:
    rows = ["FAP |mean|", "FAP mean|.|", "conditional gradient", "conditional gradient, 8 prompts"]
    folder = tmp_path / "study"
    cell = study.Cell("ioi", "counterfactual", 0)
    # one process: what a pool of them does is the same function
    said = study.run_cell(cell, folder, rows, (12, 4, 6))
    assert "4 rows" in said
    assert "nothing to do" in study.run_cell(cell, folder, rows, (12, 4, 6))

    found = json.loads((folder / "cells" / cell.name / "conditional-gradient.json").read_text())
    assert found["cost_at_50"] == {"forward": 10.0, "backward": 10.0}
    assert set(map(int, found["points"])) <= set(study.BUDGETS)
    assert all(len(kl) == 10 for kl in found["points"].values())

    marked = tmp_path / "README.md"
    first, last = study.write_report.__globals__["MARKERS"]
    marked.write_text(f"before\n{first}\nold\n{last}\nafter\n")
    study.main([str(folder), "--only-report", "--update", str(marked)])
    text = marked.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "budget saved against FAP mean\\|.\\|" in text
    report = (folder / "report.md").read_text()
    assert "conditional gradient | 10 f + 10 b" in report
    assert "plotly" in (folder / "curves.html").read_text()
