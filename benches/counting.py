"""Instructions counted by callgrind, and compared with a committed record.

A count is the same on a busy machine and nearly the same on another one, so it can be gated where a
time cannot. valgrind shows programs a processor with AVX2 and without AVX-512.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from record import HELD, MISSED, TOLD, Record, save

RECORD = Path(__file__).parent / "instructions.json"

LESS = "less than recorded: --update would show it"


def instructions(command: list[str], **environment: str) -> tuple[int, str]:
    """How many a program takes, and what it prints."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed")
    counted = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    done = subprocess.run(
        counted, capture_output=True, text=True, env={**os.environ, **environment}
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-500:]}")
    return int(found[1]), done.stdout


def tell(records: list[Record], file: Path | None) -> None:
    """Print the records, write them to `file`, and end: with 1 where a gate was missed."""
    for one in records:
        print(f"{one.what:28}{one.ours:>26}  {one.ratio:>8}  {one.state}  {one.note}")
    if file:
        save(records, file)
    sys.exit(any(one.state == MISSED for one in records))


def judge(
    target: str,
    figures: dict[str, float],
    recorded: dict[str, float],
    most: float,
    unit: str,
    other: str = "",
) -> list[Record]:
    """Each figure beside its record; missed where it is more than `most` times that, or has none.

    What is recorded and was not counted is missed too: a gate must not vanish. Where the record is
    of `other` than what is here (a compiler, an interpreter), ratios are told and not gated.
    """
    records = []
    for name in sorted(figures | recorded):
        found, before = figures.get(name), recorded.get(name)
        gate = "" if other else f"<= {most:g}x"
        here = {"target": target, "what": name, "gate": gate, "peer": "the record"}
        if found is None or before is None:
            note = "is not counted any more" if found is None else "has no record: --update"
            records.append(Record(**here, ours="", state=MISSED, note=note))
            continue
        ratio = found / before
        records.append(
            Record(
                **here,
                ours=f"{found:,.4g} {unit}" if found < 1e4 else f"{found:,.0f} {unit}",
                ratio=f"{ratio:.3f}x",
                state=TOLD if other else HELD if ratio <= most else MISSED,
                note=f"recorded with {other}" * bool(other) or LESS * (ratio < 2 - most),
            )
        )
    return records
