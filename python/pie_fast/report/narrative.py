"""The narrative of `interpretation.json`: paragraphs under titles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def narrative_parts(narrative: Mapping[str, Any] | None) -> list[tuple[str, list[str]]]:
    """Titles ("" before the first, then groups of layers) and their paragraphs.

    A text that only repeats what is told of the layers has no part; nor has an empty one.
    """
    if not narrative:
        return []
    layers = narrative.get("layers") or ()
    told = [_paragraphs(layer.get("text")) for layer in layers]
    whole = _paragraphs(narrative.get("text"))
    repeated = whole == [paragraph for paragraphs in told for paragraph in paragraphs]
    parts = [("", [] if repeated else whole), *zip(map(_title, layers), told, strict=True)]
    return [(title, paragraphs) for title, paragraphs in parts if paragraphs]


def _title(layer: Mapping[str, Any]) -> str:
    first, last = layer["first"], layer["last"]
    return f"Layer {first}" if first == last else f"Layers {first} to {last}"


def _paragraphs(text: object) -> list[str]:
    return [line.strip() for line in str(text or "").splitlines() if line.strip()]
