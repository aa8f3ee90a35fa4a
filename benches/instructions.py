"""Instructions of the core's kernels, counted by callgrind: the same on a busy machine.

    python benches/instructions.py            # fails when a kernel needs 3% more than recorded
    python benches/instructions.py --update   # record

Counted with 1 and with 3 repetitions, so that making the data is not in the figure. A processor
without AVX2 runs other kernels and is told apart.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RECORD = HERE / "instructions.json"
WORK = ("greedy-dense", "greedy-sparse", "top-k", "strongest", "score", "score-signed")
MORE = 1.03


def count(binary: Path, name: str, times: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*command, str(binary), name, str(times)], capture_output=True, text=True, check=True
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        sys.exit(f"callgrind told no count: {done.stderr[-300:]}")
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", action="store_true", help="record the counts")
    update = parser.parse_args().update
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx2" not in flags:
        sys.exit("the record is of a processor with AVX2")
    build = ["cargo", "build", "--release", "--example", "count", "-p", "pie-fast-core"]
    subprocess.run(build, check=True, cwd=HERE.parent)
    binary = HERE.parent / "target" / "release" / "examples" / "count"
    counts = {name: (count(binary, name, 3) - count(binary, name, 1)) // 2 for name in WORK}
    if update:
        RECORD.write_text(json.dumps(counts, indent=1) + "\n")
    recorded = json.loads(RECORD.read_text())
    worse = []
    for name, n in counts.items():
        ratio = n / recorded[name]
        print(f"{name:16}{n:>14,} instructions, {ratio:.3f} of the record")
        if ratio > MORE:
            worse.append(name)
    if worse:
        sys.exit(f"more instructions than recorded: {', '.join(worse)}")


if __name__ == "__main__":
    main()
