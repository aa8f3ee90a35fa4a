"""The campaign of injected faults, a small part of it: what it says is what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

CAMPAIGN = Path(__file__).parents[1] / "faults" / "campaign.py"


def test_no_answer_is_wrong(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, CAMPAIGN, "--quick", "--only", "kills", "files", "--json", report]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    faults = json.loads(report.read_text())["faults"]
    found = Counter(fault["verdict"] for fault in faults)
    assert found["survived"] > 2 and found["clear error"] > 50 and not found["WRONG"], said.stdout
    assert {fault["kind"] for fault in faults} >= {"SIGKILL of discover", "dump: shard", "journal"}
    assert f"| all | {len(faults)} | {found['survived']} |" in said.stdout
