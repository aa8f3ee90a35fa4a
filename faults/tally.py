"""What became of every fault, and the table of it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

#: the right answer, with the same bytes
SURVIVED = "survived"
#: an error of pie_fast or of the system that names the file
CLEAR = "clear error"
#: what a person wrote was changed into something else that is valid: no one can tell
OTHER = "another input"
#: anything else: must not be
WRONG = "WRONG"

VERDICTS = (SURVIVED, CLEAR, OTHER, WRONG)


@dataclass(frozen=True)
class Fault:
    """One fault that was injected.

    Attributes:
        kind: What was struck: a kind of file, a process, the disk, the clock.
        how: What was done to it.
        verdict: One of `VERDICTS`.
        detail: What was said or found.
    """

    kind: str
    how: str
    verdict: str
    detail: str


@dataclass
class Tally:
    """All faults of a campaign.

    Attributes:
        faults: In the order in which they were injected.
        not_run: Kinds that could not be tried here, and why.
    """

    faults: list[Fault] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)

    def add(self, fault: Fault) -> None:
        """Take a fault, and print what must not be."""
        self.faults.append(fault)
        if fault.verdict == WRONG:
            print(f"WRONG {fault.kind}: {fault.how}: {fault.detail}", flush=True)

    @property
    def n_wrong(self) -> int:
        """Faults whose answer was wrong."""
        return sum(fault.verdict == WRONG for fault in self.faults)

    def markdown(self) -> str:
        """Figures by kind, with date and commit."""
        kinds = dict.fromkeys(fault.kind for fault in self.faults)
        lines = [
            f"{date()}, commit {commit()}",
            "",
            "| struck | faults | " + " | ".join(VERDICTS) + " |",
            "|---|" + "---:|" * (1 + len(VERDICTS)),
        ]
        for kind in kinds:
            found = Counter(fault.verdict for fault in self.faults if fault.kind == kind)
            lines.append(_row(kind, found))
        lines.append(_row("all", Counter(fault.verdict for fault in self.faults)))
        lines += [f"\nNot run: {kind}: {why}." for kind, why in self.not_run.items()]
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Every fault, as JSON."""
        content = {
            "date": date(),
            "commit": commit(),
            "not_run": self.not_run,
            "faults": [asdict(fault) for fault in self.faults],
        }
        path.write_text(json.dumps(content, indent=1))


def _row(kind: str, found: Counter[str]) -> str:
    figures = [found.total(), *(found[verdict] for verdict in VERDICTS)]
    return f"| {kind} | " + " | ".join(map(str, figures)) + " |"


def date() -> str:
    """Today, UTC."""
    return datetime.now(UTC).date().isoformat()


def commit() -> str:
    """Of the working tree, short."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
