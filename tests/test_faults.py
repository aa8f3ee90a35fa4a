"""The campaign of injected faults, a small part of it: what it says is what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

FAULTS = Path(__file__).parents[1] / "faults"


def campaign(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, FAULTS / "campaign.py", "--quick", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_no_answer_is_wrong(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    said = campaign("--only", "kills", "files", "--json", report)
    assert said.returncode == 0, said.stdout + said.stderr
    faults = json.loads(report.read_text())["faults"]
    found = Counter(fault["verdict"] for fault in faults)
    assert found["survived"] > 2 and found["clear error"] > 50 and not found["WRONG"], said.stdout
    assert {fault["kind"] for fault in faults} >= {"SIGKILL of discover", "dump: shard", "journal"}
    assert f"| all | {len(faults)} | {found['survived']} |" in said.stdout


def test_what_there_is_not_is_refused() -> None:
    said = campaign("--only", "floods")
    assert said.returncode == 2 and "clocks, disk, ray" in said.stderr
