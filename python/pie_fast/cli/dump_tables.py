"""What the commands over dumps print for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_BAR = 40


def print_inspection(content: Mapping[str, Any]) -> None:
    """The counts, the settings, entries per layer and the histogram of activations."""
    # Plain text: `inspect` is there for a quick look, and importing rich would take longer.
    state = "complete" if content["complete"] else "INCOMPLETE"
    print(
        f"{content['path']}: feature dump, version {content['version']}, {state}\n"
        f"{content['n_prompts']} prompts, {content['n_active']} entries of "
        f"{content['n_active_features']} active features among "
        f"{content['n_layers']} x {content['n_features']}\n"
        f"{content['n_shards']} shards, {content['bytes'] / 1e6:.1f} MB, "
        f"attributions: {'yes' if content['has_attribution'] else 'no'}, "
        f"checked: {content['checked']}"
    )
    _print_columns("settings", _settings(content["settings"]))
    _print_columns("entries per layer", _layers(content["layers"]))
    _print_columns("activations by size", _histogram(content["activation"]))


def print_ranking(content: Mapping[str, Any]) -> None:
    """Features, best first."""
    _print_features(content["features"], f"best by {content['rank_by']}")


def print_redundancy(content: Mapping[str, Any]) -> None:
    """The pairs whose writes are most alike."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(content['pairs'])} strongest pairs of {len(content['features'])}")
    for name in ("feature", "feature", "cosine"):
        table.add_column(name, justify="right")
    for pair in content["pairs"]:
        ends = (f"L{end['layer']}:{end['index']}" for end in (pair["first"], pair["second"]))
        table.add_row(*ends, f"{pair['cosine']:+.4f}")
    Console(highlight=False).print(table)


def _print_features(features: list[Mapping[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(features)} features, {title}")
    for name in ("rank", "feature", "score"):
        table.add_column(name, justify="right")
    for row in features:
        table.add_row(str(row["rank"]), f"L{row['layer']}:{row['index']}", f"{row['score']:.6g}")
    Console(highlight=False).print(table)


def _print_columns(title: str, rows: list[tuple[str, ...]]) -> None:
    print(f"\n{title}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip())


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in settings.items()
    ]


def _layers(layers: list[Mapping[str, int]]) -> list[tuple[str, ...]]:
    most = max((row["n_active"] for row in layers), default=1)
    return [
        (f"L{row['layer']}", str(row["n_active"]), _bar(row["n_active"], most)) for row in layers
    ]


def _histogram(activation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    most = max((row["n"] for row in activation["histogram"]), default=1)
    rows = [
        (f"{row['from']:.3g} - {row['to']:.3g}", str(row["n"]), _bar(row["n"], most))
        for row in activation["histogram"]
    ]
    if activation["n_zero"]:
        rows.insert(0, ("0", str(activation["n_zero"]), "(baseline is not 0)"))
    if activation["n_negative"]:
        rows.append(("negative", str(activation["n_negative"]), "(counted above by size)"))
    return list(rows)


def _bar(n: int, most: int) -> str:
    return "█" * math.ceil(_BAR * n / most)
