"""The script behind the README's table of interpretation, on a small circuit of one behaviour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import measure_interpretation


def test_every_row_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_interpretation, "BEHAVIORS", ("ioi",))
    monkeypatch.setattr(measure_interpretation, "N_PROMPTS", 64)
    monkeypatch.setattr(measure_interpretation, "SEEDS", range(1))
    monkeypatch.setattr("sys.argv", ["measure", str(tmp_path), "--budget", "8"])
    measure_interpretation.main()
    head, _, own, mixed, control, cost, fade, server = capsys.readouterr().out.splitlines()
    assert "K = 8" in head
    for row in (own, mixed):
        assert re.search(r"ioi \d+% \(\d+% corrected for chance\), covering \d+% on average", row)
        assert re.search(r"; \d+% also cover half or more", row)
    assert abs(float(re.search(r"responsiveness ([+-][\d.]+)", control)[1])) < 0.05
    assert re.search(r"\(\d+ runs, \d+ without a number\), clarity", control)
    assert "calls: equal" in cost and "against" not in cost
    assert int(re.search(r"(\d+) numbers", fade)[1]) == 3 * 8
    assert float(re.search(r"difference ([\d.e+-]+)", fade)[1]) < 1e-12
    assert re.search(r"(\d+) of 8 features explained, (\d+) reported", server)
    assert "0 answers paid twice; run again: 0 requests" in server
