"""The notebooks run as they stand, and show what they say."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def shown(notebook: nbformat.NotebookNode) -> str:
    """All that its cells put out."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    texts = [out.get("text") or out.data.get("text/html", "") for out in outputs]
    return "\n".join(texts)


def test_both_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["own_clt", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    before = shown(notebook)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    said = shown(notebook)
    (fidelity,) = re.findall(r"behavioral fidelity ([\d.]+)", said)
    assert 0.3 < float(fidelity) <= 1
    assert said.count("<table>") >= 1 and "<details>" in said
    assert "behavioral fidelity" in before, "kept with its results, for code hosts"
    assert "/tmp" not in before and "/home" not in before
