"""Instructions of the core's kernels against the record: the same on a busy machine.

    python benches/instructions.py            # fails when a kernel needs 3% more than recorded
    python benches/instructions.py --update   # record

Counted with 1 and with 3 repetitions, so that making the data is not in the figure; once for each
set of kernels that valgrind can run, whose name the counted program prints.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from counting import RECORD, instructions, judge, tell

ROOT = Path(__file__).parents[1]
KERNELS = ("portable", "avx2")
WORK = (
    *("greedy-dense", "greedy-sparse", "check", "top-k", "strongest", "score", "score-signed"),
    *("redundancy", "rows", "contexts"),
)
MORE = 1.03


def build() -> str:
    """The program that does the work, wherever cargo puts it."""
    command = ["cargo", "build", "--release", "--example", "count", "-p", "pie-fast-core"]
    told = subprocess.run(
        [*command, "--message-format=json"], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    messages = map(json.loads, told.stdout.splitlines())
    built = [m["executable"] for m in messages if m.get("executable")]
    return str(built[-1])


def count(program: str, kernels: str, name: str) -> int:
    """Instructions of one repetition."""
    found = []
    for times in ("3", "1"):
        n, ran = instructions([program, name, times], PIE_FAST_KERNELS=kernels)
        if ran.strip() != kernels:
            sys.exit(f"{name}: {ran.strip()} ran in place of {kernels}")
        found.append(n)
    return (found[0] - found[1]) // 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", action="store_true", help="record the counts")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    options = parser.parse_args()
    program = build()
    work = [(kernels, name) for kernels in KERNELS for name in WORK]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # other programs change no count
        found = list(pool.map(lambda one: count(program, *one), work))
    counts = {f"{kernels}: {name}": n for (kernels, name), n in zip(work, found, strict=True)}
    recorded = json.loads(RECORD.read_text())
    version = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True)
    here = version.stdout.strip()
    if options.update:
        recorded |= {"rustc": here, "kernels": counts}
        RECORD.write_text(json.dumps(recorded, indent=1) + "\n")
    other = recorded["rustc"] if recorded["rustc"] != here else ""
    judged = judge("instructions", counts, recorded["kernels"], MORE, "instructions", other)
    tell(judged, options.json)


if __name__ == "__main__":
    main()
