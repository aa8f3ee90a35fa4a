"""Every benchmark, and one table of all of them with the gates that were held and missed.

    python benches/table.py                  # sizes for two shared cores, minutes
    python benches/table.py --full           # the sizes of the targets too
    python benches/table.py -o TABLE.md      # also written as Markdown

Each suite runs in a process of its own: a library's threads or memory touch no other suite. Exits
with 1 when a gate is missed or a suite breaks.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import model_side
from record import ABSENT, HELD, MISSED, Record, load

HERE = Path(__file__).parent
SUITES = (
    *("select", "top", "growth", "score", "synergy", "decoder", "memory", "call", "start"),
    *("growth_cost", "attribution", "prompts", "contexts"),
)
LIBRARIES = (
    *("numpy", "torch", "numba", "polars", "duckdb", "scipy"),
    *("submodlib-py", "apricot-select"),
)
COLUMNS = ("", "what", "ours", "beside", "ratio", "gate", "floor", "goal", "", "note")


def run_suite(name: str, full: bool, folder: Path) -> list[Record]:
    """The records of one suite; a suite that breaks is a missed row."""
    file = folder / f"{name}.json"
    command = [sys.executable, str(HERE / f"bench_{name}.py"), "--json", str(file)]
    print(f"\n== bench_{name}.py", flush=True)
    code = subprocess.run(command + ["--full"] * full).returncode
    if file.exists():
        return load(file)
    note = f"bench_{name}.py broke, exit code {code}"
    return [Record("", f"bench_{name}.py", "", "", state=MISSED, note=note)]


def cells(record: Record) -> list[str]:
    fields = "target what ours peer ratio gate floor goal state note"
    return [getattr(record, name) for name in fields.split()]


def as_text(records: list[Record]) -> str:
    rows = [list(COLUMNS), *map(cells, records)]
    # The note is last and as long as it likes.
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS) - 1)]
    lines = (
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(records: list[Record]) -> str:
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *map(cells, records)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def verdict(records: list[Record]) -> str:
    """How many gates held, by name those that did not, and what could not be measured."""
    missed = [r for r in records if r.state == MISSED]
    held = sum(r.state == HELD for r in records)
    lines = [f"{held} of {held + len(missed)} gates held"]
    lines += [f"missed: {r.what}, {r.peer}: {r.ratio} (gate {r.gate})" for r in missed]
    lines += [f"not installed: {r.what}, {r.peer}" for r in records if r.state == ABSENT]
    return "\n".join(lines)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    has = [flag for flag in ("avx2", "avx512f", "avx512_bf16") if flag in flags]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {len(names) or '?'} cores, {' '.join(has)}"


def setting(full: bool) -> str:
    """Machine, versions and the command, for whoever reads the table later."""
    found = []
    for library in LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"{library} not installed")
    return (
        f"`python benches/table.py{' --full' * full}` on {processor()}; "
        f"Python {platform.python_version()}, {', '.join(found)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="also sizes that take long")
    parser.add_argument("--suite", action="append", choices=[*SUITES, "model"], help="only this")
    parser.add_argument("-o", "--output", type=Path, help="write the table as Markdown")
    options = parser.parse_args()
    chosen = options.suite or [*SUITES, "model"]
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as name:
        for suite in chosen:
            if suite == "model":
                records += model_side.records(Path(name), options.full)
            else:
                records += run_suite(suite, options.full, Path(name))
    text = f"{setting(options.full)}\n\n"
    print(f"\n\n{text}{as_text(records)}\n\n{verdict(records)}")
    if options.output:
        tail = verdict(records).replace("\n", "\n- ")
        options.output.write_text(f"{text}{as_markdown(records)}\n\n{tail}\n")
    sys.exit(any(record.state == MISSED for record in records))


if __name__ == "__main__":
    main()
