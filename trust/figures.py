"""Run a campaign and keep the figures of what it tells, for its record.

    python trust/figures.py fuzz|faults|benches COMMAND [ARGUMENT ...]

What it prints is passed on as it comes; its exit code is this one's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

Figures = dict[str, float | int | str]


def of_fuzz(printed: str, _: Path) -> Figures:
    """The sums of the summary that `fuzz/smoke` prints; of what it lists, how many."""
    summary = json.loads(printed[printed.index("{\n") :])
    lists = (dict, list)
    return {key: len(one) if isinstance(one, lists) else one for key, one in summary.items()}


def of_faults(_: str, file: Path) -> Figures:
    """How many faults ended in which verdict, and which kinds could not be injected here."""
    report = json.loads(file.read_text(encoding="utf-8"))
    verdicts = Counter(fault["verdict"] for fault in report["faults"])
    figures: Figures = {"faults": verdicts.total(), "WRONG": 0, **verdicts}
    if report["not_run"]:
        figures["not_run"] = ", ".join(report["not_run"])
    return figures


def of_benches(printed: str, _: Path) -> Figures:
    """Gates that held, of how many; the ratios stand in `benches/README.md`."""
    found = re.search(r"^(\d+) of (\d+) gates held$", printed, re.M)
    if found is None:
        raise ValueError("benches/table.py printed no number of gates")
    return {"gates_held": int(found[1]), "gates": int(found[2])}


#: campaign -> its options that a file's name follows, and who reads its figures
READERS: dict[str, tuple[list[str], Callable[[str, Path], Figures]]] = {
    "fuzz": ([], of_fuzz),
    "faults": (["--json"], of_faults),
    "benches": ([], of_benches),
}


def printed_by(command: list[str]) -> tuple[str, int]:
    """What a command printed, passed on while it runs, and its exit code."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines), running.returncode


def main(kind: str, *command: str) -> int:
    """The command line."""
    options, read = READERS[kind]
    script, *arguments = command
    start = [sys.executable, script] if script.endswith(".py") else [script]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        last = [*options, str(file)] if options else []
        printed, code = printed_by([*start, *arguments, *last])
        figures = read(printed, file)
    if target := os.environ.get("RECORD_FIGURES"):
        Path(target).write_text(json.dumps(figures), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
