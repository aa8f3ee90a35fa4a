"""Say which mutants no test found.

python .ci/mutants_left.py FOLDER SHARD
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

#: in percent of those that were run: what docs/mutants.md argues about is the rest
FLOOR = 90.0


def of_rust(folder: Path) -> tuple[int, int, list[str]]:
    """Found and run (those that do not compile are neither), and the names of the others."""
    all_of_it = json.loads((folder / "mutants.out/outcomes.json").read_text())
    # One that never ends is found by its time.
    found = all_of_it["caught"] + all_of_it["timeout"]
    missed = (folder / "mutants.out/missed.txt").read_text().splitlines()
    return found, found + all_of_it["missed"], missed


def of_python(folder: Path) -> tuple[int, int, list[str]]:
    """The same of mutmut; one that no test runs counts as missed."""
    all_of_it = json.loads((folder / "mutants/mutmut-cicd-stats.json").read_text())
    found = all_of_it["killed"] + all_of_it["timeout"]
    lines = (folder / "survivors.txt").read_text().splitlines()
    return found, found + all_of_it["survived"] + all_of_it["no_tests"], lines


def main(folder: str, shard: str) -> int:
    """Print the survivors, hand the counts to `.ci/record`; 1 under the floor."""
    figures: dict[str, int | str] = {"rust_shard": shard}
    lowest = 100.0
    for name in ("dump", "select", "synergy", "topk", "python"):
        found, run, missed = (of_python if name == "python" else of_rust)(Path(folder) / name)
        print(f"{name}: {found} of {run} found", *missed, sep="\n  ")
        figures[f"{name}_run"], figures[f"{name}_found"] = run, found
        lowest = min(lowest, 100 * found / run)
    if file := os.environ.get("RECORD_FIGURES"):
        Path(file).write_text(json.dumps(figures))
    return 0 if lowest >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
