"""Every benchmark, and one table of all of them with the gates that were held and missed.

    python benches/table.py                  # sizes for two shared cores, minutes
    python benches/table.py --full           # the sizes of the targets too
    python benches/table.py -o TABLE.md      # also written as Markdown
    python benches/table.py --ci             # what CI can afford: a few minutes; gates that hold

Each suite runs in a process of its own: a library's threads or memory touch no other suite. Exits
with 1 when a gate is missed or a suite breaks.
"""

from __future__ import annotations

import argparse
import os
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
    *("growth_cost", "attribution", "circuit_tracer", "prompts", "contexts", "decoder, avx2"),
)
#: Suite and `--only` of the tables that CI runs: those whose gates held in every run so far, by a
#: margin that a shared machine leaves; then what is counted. The growth and memory gates are here.
CI = (
    *(("select", "greedy dense M=400"), ("select", "greedy dense M=2000 k=800"), ("top", "1e+07")),
    *(("score", "mean_abs T=1e+06 N=4.26e+05"), ("synergy", "strongest"), ("contexts", "")),
    *(("growth", "greedy"), ("memory", "memory of scores"), ("call", "")),
    *(("instructions", None), ("start_instructions", None)),
)
LIBRARIES = (
    *("numpy", "torch", "numba", "polars", "duckdb", "scipy"),
    *("submodlib-py", "apricot-select"),
)
COLUMNS = ("", "what", "ours", "beside", "ratio", "gate", "floor", "goal", "", "note")


def run_suite(script: str, options: list[str], folder: Path, kernels: str = "") -> list[Record]:
    """The records of one suite, with the best kernels or those named; one that breaks is a miss."""
    file = folder / f"{script}.json"
    file.unlink(missing_ok=True)
    print(f"\n== {script} {' '.join(options)}", flush=True)
    command = [sys.executable, str(HERE / script), "--json", str(file), *options]
    env = os.environ | ({"PIE_FAST_KERNELS": kernels} if kernels else {})
    code = subprocess.run(command, env=env).returncode
    records = load(file) if file.exists() else []
    if (code == 0) == any(record.state == MISSED for record in records) or not records:
        note = f"{script} broke, exit code {code}, {len(records)} records"
        records.append(Record("", script, "", "", state=MISSED, note=note))
    return records


def with_kernels(script: str, options: list[str], folder: Path, kernels: str) -> list[Record]:
    """The records of a suite with these kernels, where the processor has them."""
    if kernels and kernels not in processor():
        return [Record("", f"{script}, {kernels} kernels", "", "", state=ABSENT, note="not here")]
    return run_suite(script, options, folder, kernels)


def ci(folder: Path) -> list[Record]:
    """The records of what CI runs. Times are of one core: a second one may be another's."""
    linux = sys.platform == "linux"
    cores = os.sched_getaffinity(0) if linux else set()
    records: list[Record] = []
    try:
        for name, only in CI:
            if linux:
                os.sched_setaffinity(0, cores if only is None else {max(cores)})
            script = f"{name}.py" if only is None else f"bench_{name}.py"
            records += run_suite(script, ["--only", only] if only else [], folder)
    finally:
        if linux:
            os.sched_setaffinity(0, cores)
    return records


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


def setting(options: str) -> str:
    """Machine, versions and the command, for whoever reads the table later."""
    found = []
    for library in LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"{library} not installed")
    return (
        f"`python benches/table.py{options}` on {processor()}; "
        f"Python {platform.python_version()}, {', '.join(found)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="also sizes that take long")
    parser.add_argument("--ci", action="store_true", help="the gates of CI and no others")
    parser.add_argument("--suite", action="append", choices=[*SUITES, "model"], help="only this")
    parser.add_argument("-o", "--output", type=Path, help="write the table as Markdown")
    options = parser.parse_args()
    chosen = options.suite or [*SUITES, "model"]
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as name:
        if options.ci:
            records, chosen = ci(Path(name)), []
        for suite in chosen:
            if suite == "model":
                records += model_side.records(Path(name), options.full)
            else:
                full, (script, _, kernels) = ["--full"] * options.full, suite.partition(", ")
                records += with_kernels(f"bench_{script}.py", full, Path(name), kernels)
    text = f"{setting(' --ci' * options.ci + ' --full' * options.full)}\n\n"
    print(f"\n\n{text}{as_text(records)}\n\n{verdict(records)}")
    if options.output:
        tail = verdict(records).replace("\n", "\n- ")
        options.output.write_text(f"{text}{as_markdown(records)}\n\n{tail}\n")
    sys.exit(any(record.state == MISSED for record in records))


if __name__ == "__main__":
    main()
