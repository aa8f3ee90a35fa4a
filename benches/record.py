"""One line of the table of all benchmarks: what a suite hands on beside what it prints."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path

HELD, MISSED, TOLD, ABSENT = "held", "MISSED", "told", "not installed"


@dataclass
class Record:
    """A peer beside ours; everything is text, so that times, exponents and memory share a table.

    Attributes:
        target: Letter of the target (README: A selection, B scores, C pairs and rows, D calls).
        what: What is computed, with its size.
        ours: Our figure, with its unit.
        peer: What it is compared to.
        ratio: Peer / ours, or the figure that is gated.
        gate: What fails the run.
        floor: The target's own gate where ours is lower: the truth that a lower gate would hide.
        goal: Where we are going.
        state: ``held``, ``MISSED``, ``told`` (no gate) or ``not installed``.
        note: What is not the same about the peer, or why a gate is lower than the floor.
    """

    target: str
    what: str
    ours: str
    peer: str
    ratio: str = ""
    gate: str = ""
    floor: str = ""
    goal: str = ""
    state: str = TOLD
    note: str = ""


def save(records: list[Record], file: Path) -> None:
    file.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")


def load(file: Path) -> list[Record]:
    return [Record(**one) for one in json.loads(file.read_text())]


def times(ratio: float | None) -> str:
    """A ratio as text; nothing for a gate that is not there."""
    return "" if ratio is None else f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:,.0f}x"


def duration(seconds: float) -> str:
    """A time in the unit that reads best."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
