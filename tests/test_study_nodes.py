"""The study of nodes: its arithmetic, and a run of the smallest size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import study_nodes as study


def test_units_at_the_same_kl() -> None:
    grown = study.Grown(
        features={1: 1.0, 2: 0.01},
        nodes={2: 1.0, 4: 0.01},
        distinct=np.asarray([1, 1, 2, 2]),
        places=np.asarray([3, 5]),
    )
    assert grown.units(0.1) == pytest.approx((1.5, 4, 3, 2))
    assert grown.units(0.001) == (None,) * 4


def test_the_smallest_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: nodes -->\nold\n<!-- /table -->\nafter\n")
    sizes = "--behaviors ioi --seeds 2 --prompts 3 --held-out 3 --most 20"
    study.main([*sizes.split(), "--update", str(page)])
    text, printed = page.read_text(), capsys.readouterr().out
    assert printed.strip() in text and "old" not in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ioi: ")]
    assert len(rows) == 2 + len(study.TARGETS)
    assert all("±" in cell for row in rows[:2] for cell in row[1:])
