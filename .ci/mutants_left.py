"""Say which mutants no test found; keep the record.

python .ci/mutants_left.py FOLDER SHARD
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from record import write

#: of those that were run; what docs/mutants.md argues is below
FLOOR = 90.0


def of_rust(folder: Path) -> tuple[int, int, list[str]]:
    """Caught and run (those that do not compile are neither), and the names of the others."""
    found = json.loads((folder / "mutants.out/outcomes.json").read_text())
    # One that never ends is found by its time.
    caught = found["caught"] + found["timeout"]
    missed = (folder / "mutants.out/missed.txt").read_text().splitlines()
    return caught, caught + found["missed"], missed


def of_python(folder: Path) -> tuple[int, int, list[str]]:
    """The same of mutmut; where no test runs the function it counts as missed."""
    found = json.loads((folder / "mutants/mutmut-cicd-stats.json").read_text())
    caught = found["killed"] + found["timeout"]
    lines = (folder / "survivors.txt").read_text().splitlines()
    return caught, caught + found["survived"] + found["no_tests"], lines


def main(folder: str, shard: str) -> int:
    """Print the survivors, write the record; 1 under the floor."""
    figures: dict[str, object] = {"rust_shard": shard}
    lowest = 100.0
    for name in ("dump", "select", "synergy", "topk", "python"):
        of = of_python if name == "python" else of_rust
        caught, run, missed = of(Path(folder) / name)
        print(f"{name}: {caught} of {run} found", *missed, sep="\n  ")
        figures[f"{name}_run"], figures[f"{name}_found"] = run, caught
        lowest = min(lowest, 100 * caught / run)
    write("mutants", f".ci/mutants {shard}", figures, lowest >= FLOOR)
    return 0 if lowest >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
