"""Find the small circuit of CLT features behind a language model's behaviour.

PIE (arXiv 2604.16889): *Prune* to the features that matter, *Interpret* only those, *Evaluate*
the circuit against the full model. Importing this package imports no torch; names that need it
import it when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: public name -> the module that defines it
_PUBLIC = {
    "FeatureId": "types",
    "Selection": "types",
    "SelectionStep": "types",
    "explain_selection": "select",
    "greedy_select": "select",
    "greedy_select_many": "select",
    "top_k": "select",
    "PieFastError": "errors",
    "DumpError": "errors",
    "prune_features": "pie",
    "interpret_feature": "pie",
    "compute_fap_score": "pie",
    "evaluate_interpretation": "pie",
    "fap_synergy_reranking": "pie",
    "compute_synergy": "pie",
    "measure_behavioral_importance": "pie",
    "pie_circuit_discovery": "pie",
    "Circuit": "circuit",
    "Discovery": "discovery",
    "Interpretation": "interpretation",
    "ModelLike": "protocols",
    "FeatureLike": "protocols",
    "BehaviorLike": "protocols",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("pie_fast._native").__version__
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module 'pie_fast' has no attribute {name!r}") from None
    value = getattr(import_module(f"pie_fast.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
