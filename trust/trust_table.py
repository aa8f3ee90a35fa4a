"""What is known of this repository at this commit, as one table: what `.ci/record` wrote down.

    .ci/trust                      # print it; exit code 1 unless every step passed
    .ci/trust -o docs/trust.md     # write the page of the documentation too

A record of an older commit is shown with the number of commits since: it is true of that one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from recording import RECORDS, ROOT, Record, git, load, others

#: record -> what it is of, in the order of the table
STEPS = {
    "run": "all that must hold for a commit",
    "fuzz": "inputs fuzzed; crashes found, crashes fixed",
    "faults": "faults injected, processes killed; what survived",
    "coverage": "lines covered, Rust and Python",
    "mutants": "mutants made and killed",
    "valgrind": "memory errors of the Rust tests",
    "benches": "ratios against their floors",
    "portable": "the Rust core for other systems and processors",
    "package": "wheel and source distribution, built, installed and used",
    "audit": "licences, known vulnerabilities",
}
HEAD = """# Trust

What was checked, at which commit, and what came out. `.ci/trust` prints this page from `records/`,
where `.ci/full` and `.ci/record` write one JSON file a step.
"""


def behind(commit: str, root: Path = ROOT) -> int | None:
    """Commits since that one that changed more than records; None where it is no ancestor."""
    try:
        git("merge-base", "--is-ancestor", commit, "HEAD", root=root)
    except subprocess.CalledProcessError:
        return None
    return int(git("rev-list", "--count", f"{commit}..HEAD", *others(), root=root))


def age(record: Record, since: int | None) -> str:
    """At which commit it was made, and how far that lies back."""
    if since is None:
        where = "a commit that is no ancestor of this one"
    elif since == 0:
        where = "this commit"
    else:
        where = f"stale: {since} commit{'s' * (since > 1)} since"
    dirty = "" if record.clean else ", with changes that were not committed"
    return f"{record.commit[:9]} ({where}{dirty})"


def figures(record: Record) -> str:
    """The figures in one cell."""
    values = (
        f"{name.replace('_', ' ')}: {f'{value:,}' if isinstance(value, int) else value}"
        for name, value in record.figures.items()
    )
    return "; ".join(values).replace("|", "/")


def row(name: str, record: Record | None, since: int | None) -> list[str]:
    """One line of the table; a step without a record has one too."""
    if record is None:
        return [name, STEPS[name], "never run", "", "", "", ""]
    verdict = "passed" if record.passed else "FAILED"
    at = age(record, since)
    command = f"`{record.command.replace('|', '/')}`"
    return [name, STEPS.get(name, ""), verdict, figures(record), at, record.date[:10], command]


def table(records: list[Record], root: Path = ROOT) -> str:
    """All steps, in Markdown."""
    found = {record.name: record for record in records}
    lines = [["step", "of what", "result", "figures", "commit", "date", "command"], ["---"] * 7]
    for name in [*STEPS, *(name for name in found if name not in STEPS)]:
        record = found.get(name)
        lines.append(row(name, record, behind(record.commit, root) if record else None))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog=".ci/trust", description="What was checked, and when.")
    parser.add_argument("-o", "--output", type=Path, help="write it as Markdown too")
    options = parser.parse_args()
    records = load(RECORDS)
    text = table(records)
    print(text)
    if options.output:
        options.output.write_text(f"{HEAD}\n{text}\n", encoding="utf-8")
    passed = {record.name for record in records if record.passed}
    return int(not passed >= {*STEPS, *(record.name for record in records)})


if __name__ == "__main__":
    sys.exit(main())
