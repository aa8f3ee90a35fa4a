"""What `interpret` prints for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')

#: measures with a column of their own, the first of each pair that was measured; an 80 columns wide
#: terminal has room for no more beside the label
_COLUMNS = (("responsiveness_llm", "responsiveness_rule"), ("detection_llm", "clarity_rule"))


def print_interpretation(content: Mapping[str, Any], folder: Path) -> None:
    """Features, quality, the story, and where the files are."""
    console = Console()
    console.print(_features(content["interpretations"]))
    console.print(_quality(content["quality"]))
    story = (content["llm"] or {}).get("narrative")
    console.print(Text(story["summary"] if story else content["narrative"]["text"]))
    corpus = content["corpus"]
    console.print(
        f"looked at {corpus['n_tokens']} tokens of {corpus['n_sequences']} sequences "
        f"({', '.join(corpus['sources'])}); {sum(content['timings'].values()):.1f} s",
        highlight=False,
    )
    names = ("interpretation.json", "explanations.jsonl")
    console.print(f"files: {', '.join(str(folder / name) for name in names)}", highlight=False)


def _features(rows: list[Mapping[str, Any]]) -> Table:
    measured = {name for row in rows for name in row["quality"]}
    found = [[name for name in pair if name in measured][:1] for pair in _COLUMNS]
    names = [name for one in found for name in one]
    title = "What the feature does" if len(rows) == 1 else f"What the {len(rows)} features do"
    caption = (
        "effect: FAP score; fires: share of positions; · is a space; in the order of selection"
    )
    table = Table(title=title, caption=caption, expand=True)
    table.add_column("feature")
    table.add_column("effect", justify="right")
    table.add_column("fires", justify="right")
    for name in names:
        table.add_column(f"{name[:4]}. {name.rpartition('_')[2]}", justify="right", max_width=5)
    table.add_column("what it does", ratio=1, min_width=36)
    for row in rows:
        table.add_row(
            row["feature"],
            f"{row['fap_score']:.3f}",
            f"{row['density']:.1%}",
            *(_value(row["quality"].get(name)) for name in names),
            Text(with_visible_spaces(row["label"])),
        )
    return table


def with_visible_spaces(label: str) -> str:
    """A label whose quoted tokens show their spaces: a line would break at them."""
    return _QUOTED.sub(lambda found: found[0].replace(" ", "·"), label)


def _quality(quality: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="How well rules (_rule) and labels (_llm) fit")
    for name in ("measure", "mean", "signed", "features", "without a value"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for name, one in quality.items():
        n = one["n"] + one["n_missing"]
        why = ", ".join(f"{count}: {reason}" for reason, count in one["why"].items())
        table.add_row(
            name.replace("_", " "),
            _figure(one["mean"]),
            _figure(one["mean_signed"]),
            f"{one['n']} of {n}",
            why,
        )
    return table


def _value(measure: Mapping[str, Any] | None) -> str:
    return "-" if measure is None else _figure(measure["value"])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
