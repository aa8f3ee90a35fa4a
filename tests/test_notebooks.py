"""The notebooks run as they stand, and show what they say."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from run_notebooks import FOLDER, run

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def shown(notebook: nbformat.NotebookNode) -> str:
    """All that its cells put out."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    return "\n".join(out.get("text") or out.data["text/html"] for out in outputs)


def test_both_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["own_clt", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said = shown(run(path))
    (fidelity,) = re.findall(r"behavioral fidelity ([\d.]+)", said)
    assert 0.3 < float(fidelity) <= 1
    assert "<table>" in said and "<details>" in said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_results_are_kept_for_code_hosts(path: Path) -> None:
    kept = shown(nbformat.read(path, as_version=4))
    assert "behavioral fidelity" in kept
    assert "/tmp" not in kept and "/home" not in kept
