"""One step of the checks, run and written down: `records/NAME.json`.

    .ci/record NAME -- COMMAND [ARGUMENT ...]

Runs the command and writes whether it succeeded, at which commit and when. The command finds a
file's name in `RECORD_FIGURES`; a JSON object that it writes there becomes the record's figures.
Standard library only, so that a step needs nothing installed to be recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "records"

#: What a commit may change and leave every record as true as it was: the records and words on them.
WRITTEN = ("records", "docs/trust.md", "docs/faults.md", "benches/README.md", "fuzz/RECORD.md")


@dataclass(frozen=True)
class Record:
    """What one step found.

    Attributes:
        name: The step; its file's name.
        commit: The commit that was checked, 40 hexadecimal digits.
        date: When the step ended, UTC, ISO 8601.
        command: What was run, from the root of the repository.
        figures: Numbers and words by name, as the step counts them.
        passed: Whether the command succeeded.
        clean: Whether the working tree was that commit's, files in `WRITTEN` aside.
    """

    name: str
    commit: str
    date: str
    command: str
    figures: dict[str, float | int | str]
    passed: bool
    clean: bool = field(default=True)


def git(*arguments: str, root: Path = ROOT) -> str:
    """What git says, without the last newline.

    Raises:
        subprocess.CalledProcessError: Git refused.
    """
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.rstrip("\n")


def others() -> list[str]:
    """The path arguments of git that mean: everything but what the records are written to."""
    return ["--", ".", *(f":(exclude){path}" for path in WRITTEN)]


def made(
    name: str,
    command: str,
    figures: dict[str, float | int | str],
    passed: bool,
    root: Path = ROOT,
) -> Record:
    """A record of this moment, at the commit that is checked out under `root`."""
    return Record(
        name=name,
        commit=git("rev-parse", "HEAD", root=root),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        figures=figures,
        passed=passed,
        clean=not git("status", "--porcelain", *others(), root=root),
    )


def save(record: Record, folder: Path = RECORDS) -> Path:
    """Write `folder/NAME.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{record.name}.json"
    beside = file.with_suffix(".json.part")
    beside.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
    return file


def load(folder: Path = RECORDS) -> list[Record]:
    """All records of a folder, by name.

    Raises:
        ValueError: A file is no record.
    """
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            found.append(Record(**json.loads(file.read_text(encoding="utf-8"))))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: no record: {error}") from error
    return found


def run(
    name: str, command: list[str], root: Path = ROOT, records: Path = RECORDS
) -> tuple[Record, int]:
    """Run a step from `root`; its record, and its exit code (128 + n for signal n).

    An older record goes first. A step may write one of its own; its figures are kept.
    """
    own = records / f"{name}.json"
    own.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        environment = {**os.environ, "RECORD_FIGURES": str(file)}
        code = subprocess.run(command, cwd=root, env=environment, check=False).returncode
        figures = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if own.exists():
        figures = {**json.loads(own.read_text(encoding="utf-8"))["figures"], **figures}
    record = made(name, shlex.join(command), figures, code == 0, root)
    return record, code if code >= 0 else 128 - code


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog=".ci/record", description="Run a step and record it.")
    parser.add_argument("name", help="name of the record")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND [ARGUMENT ...]")
    options = parser.parse_args()
    command = options.command[options.command[:1] == ["--"] :]
    if not command:
        parser.error("no command: .ci/record NAME -- COMMAND")
    record, code = run(options.name, command)
    print(f"recorded: {save(record).relative_to(ROOT)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
