"""The narrative of `interpretation.json`: paragraphs, and which features they speak of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A part of the narrative.

    Attributes:
        title: The layers, or "" where the text names them or is of the whole circuit.
        paragraphs: The text.
        statements: What features do, and which, as text.
    """

    title: str
    paragraphs: list[str]
    statements: list[str]


def all_narratives(told: Mapping[str, Any]) -> list[Part]:
    """The narrative of the rules, then a language model's, of `interpretation.json`."""
    by_model = (told.get("llm") or {}).get("narrative")
    return [*narrative_parts(told.get("narrative")), *narrative_parts(by_model)]


def narrative_parts(narrative: Mapping[str, Any] | None) -> list[Part]:
    """The whole first, then the groups of layers.

    A text that only repeats what is told of the layers has no part; nor has an empty one. A
    language model's narrative says its whole in `summary`, and who told it in `narrator`.
    """
    if not narrative:
        return []
    layers = [_layer(layer) for layer in narrative.get("layers") or ()]
    whole = _paragraphs(narrative.get("summary") or narrative.get("text"))
    if whole == [paragraph for part in layers for paragraph in part.paragraphs]:
        whole = []
    by = [f"Told by {narrative['narrator']}."] if narrative.get("narrator") else []
    return [part for part in (Part("", whole, []), *layers, Part("", by, [])) if part.paragraphs]


def _layer(told: Mapping[str, Any]) -> Part:
    first, last, paragraphs = told["first"], told["last"], _paragraphs(told.get("text"))
    title = f"Layer {first}" if first == last else f"Layers {first} to {last}"
    named = bool(paragraphs) and paragraphs[0].startswith("Layer")
    statements = [
        f"{one['text']} ({one['share']:.0%}): {', '.join(one['features'])}"
        for one in told.get("statements") or ()
    ]
    return Part("" if named else title, paragraphs, statements)


def _paragraphs(text: object) -> list[str]:
    return [line.strip() for line in str(text or "").splitlines() if line.strip()]
