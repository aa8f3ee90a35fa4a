"""Feature cards as plain data, small enough that 800 of them fit one page.

Tokens are words of one list, said by number; activations are levels of -99..99 of the feature's
largest magnitude; of each context a window around the peak. Keys are the script's (`cards.js`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pie_fast.report.kept import Kept
from pie_fast.report.run import Run
from pie_fast.report.tokens import visible
from pie_fast.types import FeatureId

#: contexts of each kind that a card shows
_N_CONTEXTS = {"top": 8, "quantile": 5, "silent": 5}

#: tokens of a context before and after its peak
_BEFORE, _AFTER = 28, 12

#: links of each kind that a card shows
_N_LINKS = 8

_LEVELS = 99

#: kinds of links, as they are called on a card
_LINKS = (("fed_by", "fed by"), ("feeds", "feeds"), ("coactive", "fires with"))


class Words:
    """Tokens, each once, by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, token: str) -> int:
        """The number of a token."""
        return self._numbers.setdefault(token, len(self._numbers))

    def list(self) -> list[str]:
        """All of them as they are shown, by number."""
        return [visible(token) for token in self._numbers]


def feature_cards(
    run: Run,
    kept: Sequence[Kept],
    partners: Mapping[FeatureId, Sequence[tuple[FeatureId, float]]],
    words: Words,
) -> list[dict[str, Any]]:
    """A card for each feature kept, in the order of selection; nodes of one feature share it.

    Args:
        run: The run.
        kept: Its features or nodes.
        partners: Of each feature those of strongest synergy.
        words: Takes the tokens.
    """
    units: dict[FeatureId, list[Kept]] = {}
    for one in kept:
        units.setdefault(one.feature, []).append(one)
    shown = {str(feature) for feature in units}
    to_metric = (
        dict(zip(run.edges.features, run.edges.to_metric.tolist(), strict=True))
        if (run.edges)
        else {}
    )
    cards = []
    for feature, nodes in units.items():
        told = run.interpretations.get(str(feature), {})
        with_synergy = [(str(other), value) for other, value in partners.get(feature, ())]
        cards.append(
            {
                **_head(feature, nodes, told),
                "direct": short(to_metric.get(str(feature))),
                "hist": _histogram(told.get("histogram")),
                "contexts": _contexts(told.get("contexts") or (), words),
                "n_contexts": len(told.get("contexts") or ()),
                "up": _tokens(told.get("promoted"), words),
                "down": _tokens(told.get("suppressed"), words),
                "links": _links(told, with_synergy, shown),
                "quality": card_quality(told.get("quality") or {}),
            }
        )
    return cards


def short(value: float | None) -> float | None:
    """Four digits."""
    return None if value is None else float(f"{value:.4g}")


def card_quality(quality: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a measure, with what a rule and what a language model judged, never mixed."""
    rows: dict[str, dict[str, Any]] = {}
    for name, measure in quality.items():
        base, _, judge = name.rpartition("_")
        if judge not in ("rule", "llm"):
            base, judge = name, "rule"
        value = measure.get("signed")
        rows.setdefault(base, {"name": base.replace("_", " ")})[judge] = {
            "value": short(measure.get("value") if value is None else value),
            "n": [measure.get("n_positive", 0), measure.get("n_negative", 0)],
            "why": measure.get("why"),
        }
    return list(rows.values())


def _head(feature: FeatureId, nodes: Sequence[Kept], told: Mapping[str, Any]) -> dict[str, Any]:
    first = nodes[0]
    strongest = max(nodes, key=lambda node: node.size)
    return {
        "key": str(feature),
        "layer": feature.layer,
        "rank": first.rank,
        "places": [node.place for node in nodes],
        "label": told.get("label") or "no label",
        "explainer": told.get("explainer", ""),
        "score": short(first.score),
        "stability": short(first.stability),
        "effect": short(strongest.effect),
        "size": short(strongest.size),
        "first_order": short(told.get("fap_score")),
        "fit": short(told.get("label_quality")),
        "n_texts": told.get("n_active_prompts"),
        "density": short(told.get("density")),
    }


def _contexts(contexts: Sequence[Mapping[str, Any]], words: Words) -> list[dict[str, Any]]:
    taken: dict[str, int] = {}
    chosen = []
    for context in contexts:
        kind = context.get("kind", "top")
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] <= _N_CONTEXTS.get(kind, 3):
            chosen.append(context)
    values = [value for one in chosen for value in _values(one)]
    largest = max(map(abs, values), default=0.0) or 1.0
    return [_context(context, largest, words) for context in chosen]


def _values(context: Mapping[str, Any]) -> Sequence[float]:
    return context.get("activations") or [context.get("activation") or 0.0]


def _context(context: Mapping[str, Any], largest: float, words: Words) -> dict[str, Any]:
    tokens, peak = context["tokens"], context.get("peak")
    start = max(0, (peak or 0) - _BEFORE)
    end = min(len(tokens), max((peak or 0) + _AFTER, _BEFORE) + 1)
    values = context.get("activations") or ()
    if not values and peak is not None:
        values = [0.0] * len(tokens)
        values[peak] = context["activation"]
    return {
        "kind": context.get("kind", "top"),
        "source": context.get("source", ""),
        "value": short(context.get("activation")),
        "peak": None if peak is None else peak - start,
        "words": [words.number(token) for token in tokens[start:end]],
        "levels": [round(_LEVELS * value / largest) for value in values[start:end]],
        "cut": [start > 0, end < len(tokens)],
    }


def _histogram(histogram: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not histogram or not any(histogram["counts"]):
        return None
    return {"edges": [short(e) for e in histogram["edges"]], "counts": histogram["counts"]}


def _tokens(effects: Sequence[Mapping[str, Any]] | None, words: Words) -> list[list[Any]]:
    return [[words.number(one["token"]), short(one["effect"])] for one in effects or ()]


def _links(
    told: Mapping[str, Any], with_synergy: Sequence[tuple[str, float]], shown: set[str]
) -> list[list[Any]]:
    """Kinds with the features that have a card."""
    kinds = [
        (title, [(one["feature"], one["weight"]) for one in told.get(kind) or ()])
        for kind, title in _LINKS
    ]
    kinds.append(("synergy with", list(with_synergy)))
    rows = [
        [title, [[key, short(weight)] for key, weight in links if key in shown][:_N_LINKS]]
        for title, links in kinds
    ]
    return [row for row in rows if row[1]]
