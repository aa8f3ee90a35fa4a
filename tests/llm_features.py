"""Interpretations of features as rules leave them, for a language model to go on with."""

from __future__ import annotations

from typing import Any

from pie_fast.interpretation import Interpretation, TokenEffect, TopContext
from pie_fast.types import FeatureId


def context(tokens: str, *activations: float, kind: str = "top") -> TopContext:
    words = tuple(f" {word}" for word in tokens.split())
    peak = max(range(len(activations)), key=lambda i: abs(activations[i])) if activations else None
    at_peak = 0.0 if peak is None else activations[peak]
    return TopContext(words, peak, at_peak, kind, tuple(activations))


def feature(index: int, **fields: Any) -> Interpretation:
    given: dict[str, Any] = {
        "feature": FeatureId(index // 10, index),
        "layer": index // 10,
        "fap_score": index - 10.0,
        "label": f"rule {index}",
        "label_quality": 0.5,
        "rule": {"text": f"word {index}"},
        "contexts": (
            context("Mary and John went", 0, 0.1, 3.0, 0.0),
            context("then Mary", 0.0, 0.3, kind="quantile"),
            context("it rains", kind="silent"),
        ),
        "promoted": (TokenEffect(" up", 1, 2.0),),
        "suppressed": (TokenEffect(" down", 2, -2.0),),
    }
    return Interpretation(**(given | fields))
