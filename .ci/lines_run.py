"""Say which lines no test ran, from the reports of coverage.py and llvm-cov.

python .ci/lines_run.py PYTHON.json RUST.json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FLOOR = 90.0

ROOT = Path(__file__).resolve().parent.parent


class File(NamedTuple):
    """Lines of one source file: how many there are, and those that no test ran."""

    name: str
    n_lines: int
    missed: list[int]


def of_python(report: dict[str, Any]) -> Iterator[File]:
    """Files of a report of `coverage json`."""
    for name, found in report["files"].items():
        yield File(name, found["summary"]["num_statements"], found["missing_lines"])


def of_rust(report: dict[str, Any]) -> Iterator[File]:
    """Files of a report of `llvm-cov export`."""
    for found in report["data"][0]["files"]:
        name = str(Path(found["filename"]).relative_to(ROOT))
        lines = found["summary"]["lines"]
        yield File(name, lines["count"], sorted(missed_lines(found["segments"])))


def missed_lines(segments: list[list[Any]]) -> set[int]:
    """Lines on which regions of code begin, none of which ran."""
    most: dict[int, int] = {}
    for line, _column, count, has_count, is_entry, *_ in segments:
        if has_count and is_entry:
            most[line] = max(most.get(line, 0), count)
    return {line for line, count in most.items() if count == 0}


def ranges(lines: list[int]) -> str:
    """`[3, 4, 5, 9]` as `3-5, 9`."""
    runs: list[list[int]] = []
    for line in lines:
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def main(python: str, rust: str) -> int:
    """Print the lines and the totals, hand the totals to `.ci/record`; 1 under the floor."""
    of_llvm = json.loads(Path(rust).read_text())
    of_coverage = json.loads(Path(python).read_text())
    for file in sorted([*of_python(of_coverage), *of_rust(of_llvm)]):
        if file.missed:
            print(f"{file.name}: {len(file.missed)} of {file.n_lines}: {ranges(file.missed)}")
    totals = of_llvm["data"][0]["totals"]["lines"]
    figures = {
        "python_lines": of_coverage["totals"]["num_statements"],
        "python_percent": round(of_coverage["totals"]["percent_covered"], 2),
        "rust_lines": totals["count"],
        "rust_percent": round(totals["percent"], 2),
    }
    print(json.dumps(figures))
    if file_of_record := os.environ.get("RECORD_FIGURES"):
        Path(file_of_record).write_text(json.dumps(figures))
    return 0 if min(figures["python_percent"], figures["rust_percent"]) >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
