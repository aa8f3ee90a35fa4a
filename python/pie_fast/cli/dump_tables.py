"""What the commands over dumps print for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_BAR = 40


def print_inspection(content: Mapping[str, Any]) -> None:
    """The counts, the settings, entries per layer and the histogram of activations."""
    console = Console(highlight=False)
    state = "complete" if content["complete"] else "INCOMPLETE"
    console.print(
        f"{content['path']}: feature dump, version {content['version']}, {state}\n"
        f"{content['n_prompts']} prompts, {content['n_active']} entries of "
        f"{content['n_active_features']} active features among "
        f"{content['n_layers']} x {content['n_features']}\n"
        f"{content['n_shards']} shards, {content['bytes'] / 1e6:.1f} MB, "
        f"attributions: {'yes' if content['has_attribution'] else 'no'}, "
        f"checked: {content['checked']}"
    )
    console.print(_settings(content["settings"]))
    console.print(_layers(content["layers"]))
    console.print(_histogram(content["activation"]))


def print_ranking(content: Mapping[str, Any]) -> None:
    """Features, best first."""
    _print_features(content["features"], f"best by {content['rank_by']}")


def print_redundancy(content: Mapping[str, Any]) -> None:
    """The pairs whose writes are most alike."""
    table = Table(title=f"{len(content['pairs'])} strongest pairs of {len(content['features'])}")
    for name in ("feature", "feature", "cosine"):
        table.add_column(name, justify="right")
    for pair in content["pairs"]:
        ends = (f"L{end['layer']}:{end['index']}" for end in (pair["first"], pair["second"]))
        table.add_row(*ends, f"{pair['cosine']:+.4f}")
    Console(highlight=False).print(table)


def _print_features(features: list[Mapping[str, Any]], title: str) -> None:
    table = Table(title=f"{len(features)} features, {title}")
    for name in ("rank", "feature", "score"):
        table.add_column(name, justify="right")
    for row in features:
        table.add_row(str(row["rank"]), f"L{row['layer']}:{row['index']}", f"{row['score']:.6g}")
    Console(highlight=False).print(table)


def _settings(settings: Mapping[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    for key, value in settings.items():
        table.add_row(key, value if isinstance(value, str) else json.dumps(value))
    return table


def _layers(layers: list[Mapping[str, int]]) -> Table:
    table = Table(title="entries per layer", show_header=False, box=None)
    most = max((row["n_active"] for row in layers), default=1)
    for row in layers:
        table.add_row(f"L{row['layer']}", str(row["n_active"]), _bar(row["n_active"], most))
    return table


def _histogram(activation: Mapping[str, Any]) -> Table:
    table = Table(title="activations by size", show_header=False, box=None)
    rows = activation["histogram"]
    most = max((row["n"] for row in rows), default=1)
    if activation["n_zero"]:
        table.add_row("0", str(activation["n_zero"]), "(baseline is not 0)")
    for row in rows:
        table.add_row(f"{row['from']:.3g} - {row['to']:.3g}", str(row["n"]), _bar(row["n"], most))
    if activation["n_negative"]:
        table.add_row("negative", str(activation["n_negative"]), "(counted above by size)")
    return table


def _bar(n: int, most: int) -> str:
    return "█" * math.ceil(_BAR * n / most)
