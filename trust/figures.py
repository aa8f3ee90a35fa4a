"""Run a campaign and keep the figures of what it tells, for its record.

    python trust/figures.py fuzz|faults|benches COMMAND [ARGUMENT ...]
    python trust/figures.py benches TABLE.md     # of a run whose table was kept
    python trust/figures.py faults REPORT.json ... # of parts of a campaign that were kept

What it prints is passed on as it comes; its exit code is this one's, and 1 where a kept table has
gates that were missed or a kept report has wrong answers.
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

ROOT = Path(__file__).resolve().parent.parent


def of_fuzz(printed: str, _: Path) -> Figures:
    """The sums of the summary that `fuzz/smoke` prints; of what it lists, how many; and in all."""
    summary = json.loads(printed[printed.index("{\n") :])
    lists = (dict, list)
    counts = {key: len(one) if isinstance(one, lists) else one for key, one in summary.items()}
    return {**counts, **fuzzed_in_all((ROOT / "fuzz/RECORD.md").read_text(encoding="utf-8"))}


def fuzzed_in_all(record: str) -> Figures:
    """What `fuzz/RECORD.md` adds up to: campaigns of the past, and what they found."""
    sums = re.findall(r"^\| all \| ([\d,]+) \| ([\d,]+) \|$", record, re.M)
    findings = record.partition("| found by |")[2].splitlines()[2:]
    return {
        "in_all_executions": sum(int(executions.replace(",", "")) for executions, _ in sums),
        "in_all_cpu_s": sum(int(seconds.replace(",", "")) for _, seconds in sums),
        "found_and_fixed": sum(line.startswith("| ") for line in findings),
    }


def of_faults(_: str, *files: Path) -> Figures:
    """How many faults ended in which verdict, which kinds could not be injected, and where."""
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    verdicts = Counter(fault["verdict"] for report in reports for fault in report["faults"])
    figures: Figures = {"faults": verdicts.total(), "WRONG": 0, **verdicts}
    if not_run := sorted({kind for report in reports for kind in report["not_run"]}):
        figures["not_run"] = ", ".join(not_run)
    figures["struck_at"] = " ".join(sorted({report["commit"] for report in reports}))
    return figures


def of_benches(_: str, file: Path) -> Figures:
    """Gates that held, of how many; by target, how many ratios reach their floor, and the least.

    The floor is the target's own where the gate is lower, else the gate. Gates that are no `1.5x`
    (exponents, what must stay below) are in the first two figures only.

    Raises:
        ValueError: The file is no table of `benches/table.py`.
    """
    text = file.read_text(encoding="utf-8")
    found = re.search(r"^(\d+) of (\d+) gates held$", text, re.M)
    if found is None:
        raise ValueError(f"{file} has no number of gates that held")
    figures: Figures = {"gates_held": int(found[1]), "gates": int(found[2])}
    reached: dict[str, list[float]] = {}
    for line in re.findall(r"^\|(.*)\|$", text, re.M):
        target, _, _, _, ratio, gate, floor, *_ = [cell.strip() for cell in line.split("|")]
        times, least = _times(ratio), _times(floor or gate)
        if times and least:
            reached.setdefault(target, []).append(times / least)
    for target, shares in sorted(reached.items()):
        n = sum(share >= 1 for share in shares)
        figures[target or "others"] = f"{n} of {len(shares)} at the floor, least {min(shares):.2f}x"
    return figures


def _times(cell: str) -> float | None:
    """The number of `1,234x`; None of anything else."""
    return float(cell[:-1].replace(",", "")) if re.fullmatch(r"[\d,.e+]+x", cell) else None


#: campaign -> its options that a file's name follows, and who reads its figures
READERS: dict[str, tuple[list[str], Callable[..., Figures]]] = {
    "fuzz": ([], of_fuzz),
    "faults": (["--json"], of_faults),
    "benches": (["--output"], of_benches),
}


#: campaign -> how a report of it that was kept is called
KEPT = {"faults": ".json", "benches": ".md"}


def printed_by(command: list[str]) -> tuple[str, int]:
    """What a command printed, passed on while it runs, and its exit code."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines), running.returncode


def kept(figures: Figures, code: int) -> int:
    """Hand the figures to `.ci/record`, and the exit code on."""
    if target := os.environ.get("RECORD_FIGURES"):
        Path(target).write_text(json.dumps(figures), encoding="utf-8")
    return code


def main(kind: str, *command: str) -> int:
    """The command line."""
    options, read = READERS[kind]
    script, *arguments = command
    if script.endswith((".md", ".json")):
        if not script.endswith(KEPT.get(kind, "/")):
            sys.exit(f"{kind}: no report is kept as {script}")
        try:
            figures = read("", *map(Path, command))
        except (OSError, TypeError, ValueError, KeyError) as error:
            sys.exit(f"{kind}: {' '.join(command)}: {error}")
        failed = figures.get("gates_held") != figures.get("gates") or figures.get("WRONG")
        return kept(figures, int(bool(failed)))
    start = [sys.executable, script] if script.endswith(".py") else [script]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        last = [*options, str(file)] if options else []
        printed, code = printed_by([*start, *arguments, *last])
        figures = read(printed, file)
    return kept(figures, code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
