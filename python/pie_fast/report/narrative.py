"""The narrative of `interpretation.json`: paragraphs under titles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def narrative_parts(narrative: Mapping[str, Any] | None) -> list[tuple[str, list[str]]]:
    """Titles (of layers; "" before them) and their paragraphs; parts without any are left out."""
    if narrative is None:
        return []
    parts = [("", _paragraphs(narrative.get("text")))]
    for at, layer in enumerate(narrative.get("layers") or ()):
        told = layer if isinstance(layer, Mapping) else {"text": layer}
        parts.append((f"Layer {told.get('layer', at)}", _paragraphs(told.get("text"))))
    return [(title, paragraphs) for title, paragraphs in parts if paragraphs]


def _paragraphs(text: object) -> list[str]:
    return [part.strip() for part in str(text or "").split("\n\n") if part.strip()]
