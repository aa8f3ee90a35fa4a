"""What `pie-fast shared` prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_shared(result: Mapping[str, Any], folder: Path) -> None:
    """The shared circuit, what it is worth to each behaviour, and the front."""
    console = Console()
    names = [row["name"] for row in result["behaviors"]]
    console.print(_features(result["features"], names))
    console.print(_behaviors(result["behaviors"]))
    if result["front"]:
        console.print(_front(result["front"], names))
    several = sum(len(row["serves"]) > 1 for row in result["features"])
    console.print(
        "own: a circuit of the same budget for this behaviour alone; in turns: the first features "
        "of those circuits; in its own: how many features of the shared one are in it",
        highlight=False,
    )
    console.print(
        f"{several} of {len(result['features'])} features serve more than one behaviour; objective "
        f"{result['settings']['objective']}; {sum(result['timings'].values()):.1f} s",
        highlight=False,
    )
    console.print(f"file: {folder / 'result.json'}", highlight=False)


def _features(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    table = Table(title=f"The {len(rows)} features, and how much KL rises when one goes")
    for name in ("", "feature", *names):
        table.add_column(name, justify="left" if name == "feature" else "right")
    table.add_column("serves")
    for row in rows:
        effects = [f"{row['effects'][name]:.3f}" for name in names]
        serves = ", ".join(row["serves"])
        table.add_row(str(row["rank"]), f"L{row['layer']}:{row['index']}", *effects, serves)
    return table


def _behaviors(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=f"Fidelity, {rows[0]['split'].replace('_', '-')} prompts")
    for name in ("", "shared", "own", "in turns", "price (KL)", "in its own"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(
            row["name"],
            _fidelity(row),
            *(f"{row[other]['behavioral_fidelity']:.3f}" for other in ("own", "in_turns")),
            f"{row['price']:.3f}",
            str(row["in_own"]),
        )
    return table


def _fidelity(figures: Mapping[str, Any]) -> str:
    interval = figures["intervals"]["behavioral_fidelity"]
    spread = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{figures['behavioral_fidelity']:.3f}{spread}"


def _front(points: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    kept = [point for point in points if point["on_front"]]
    table = Table(title=f"Mean KL on the front, {len(kept)} of {len(points)} circuits")
    table.add_column("weights")
    for name in names:
        table.add_column(name, justify="right")
    for point in kept:
        weights = point["weights"]
        told = "worst" if weights is None else ", ".join(f"{weights[n]:.2g}" for n in names)
        table.add_row(told, *(f"{point['mean_kl'][name]:.3f}" for name in names))
    return table
