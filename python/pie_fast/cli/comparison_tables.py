"""What `compare` prints for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pie_fast.comparing import Comparison
from pie_fast.dump_comparing import LONE, TOLERANCE, DumpComparison

#: features that a table or a list names; `--json` has all of them
_SHOWN = 15

#: characters of a setting's value
_LONGEST = 40


def print_comparison(found: Comparison, first: Path, second: Path) -> None:
    """Overlap, fidelity, moved ranks, and what was set differently."""
    console = Console()
    console.print(f"1: {first}\n2: {second}", highlight=False, markup=False)
    console.print(_overlap(found), highlight=False)
    console.print(_fidelity(found), highlight=False)
    if any(one.by for one in found.moved):
        console.print(_moved(found))
    for number, only in (("1", found.only_first), ("2", found.only_second)):
        if only:
            console.print(f"only in {number}: {_some(only)}", highlight=False)
    if found.settings:
        console.print(_settings(found))


def print_dump_comparison(found: DumpComparison, first: Path, second: Path) -> None:
    """How far two dumps are apart, and what stands in one of them only."""
    console = Console(highlight=False)
    console.print(f"1: {first}\n2: {second}", markup=False)
    said = "they agree" if found.agrees else "they do NOT agree"
    console.print(
        f"{said}: {found.n_shared} entries in both, {found.n_lone} in one only "
        f"({found.lone_share:.2g} of all; at most {LONE:g})"
    )
    table = Table(title=f"Largest differences; at most {TOLERANCE:g} of the largest value")
    for name in ("", "largest value", "largest difference", "share"):
        table.add_column(name, justify="right")
    for name in ("activation", "attribution", "metric"):
        one = getattr(found, name)
        table.add_row(name, f"{one.largest:.6g}", f"{one.difference:.3g}", f"{one.share:.2g}")
    console.print(table)
    for lone in found.lone[:_SHOWN]:
        console.print(
            f"only in {lone.where}: prompt {lone.prompt}, {lone.name}, position {lone.position}, "
            f"activation {lone.activation:.6g}"
        )


def _overlap(found: Comparison) -> str:
    jaccard = "" if found.jaccard is None else f", Jaccard {found.jaccard:.3f}"
    order = (
        ""
        if found.rank_correlation is None
        else (f"; rank correlation of these {found.rank_correlation:.3f}")
    )
    return f"kept by both: {found.shared} of {found.n_first} and {found.n_second}{jaccard}{order}"


def _fidelity(found: Comparison) -> str:
    told = (
        f"fidelity: {found.fidelity_first:.3f} and {found.fidelity_second:.3f}, "
        f"difference {found.difference:+.3f}"
    )
    if found.interval is None:
        return f"{told}; no interval: {found.why}"
    low, high = found.interval
    return f"{told} [{low:+.3f}, {high:+.3f}], paired over prompts, 95%"


def _moved(found: Comparison) -> Table:
    moved = [one for one in found.moved if one.by]
    title = f"Ranks that moved: {len(moved)} of {found.shared}"
    if len(moved) > _SHOWN:
        title += f", the {_SHOWN} that moved most"
    table = Table(title=title)
    for name in ("feature", "rank in 1", "rank in 2", "moved"):
        table.add_column(name, justify="left" if name == "feature" else "right")
    for one in moved[:_SHOWN]:
        table.add_row(one.feature, str(one.rank_first), str(one.rank_second), f"{one.by:+d}")
    return table


def _settings(found: Comparison) -> Table:
    table = Table(title="Set differently")
    for name in ("setting", "1", "2"):
        table.add_column(name)
    for name, values in found.settings.items():
        table.add_row(name, *map(_short, values))
    return table


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"...{text[-_LONGEST:]}"
