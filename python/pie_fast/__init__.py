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
    "Behavior": "behaviors",
    "BehaviorLike": "protocols",
    "Circuit": "circuit",
    "Discovery": "discovery",
    "DumpError": "errors",
    "DumpWriter": "dump",
    "FeatureDump": "dump",
    "FeatureId": "types",
    "FeatureLike": "protocols",
    "Interpretation": "interpretation",
    "ModelLike": "protocols",
    "Motifs": "planted",
    "PieFastError": "errors",
    "Planted": "planted",
    "Prompt": "behaviors",
    "PromptTable": "dump",
    "ReplacementModel": "replacement_model",
    "Selection": "types",
    "SelectionStep": "types",
    "SynergyMatrix": "synergy_matrix",
    "choose_budget": "budget",
    "choose_knee": "knee",
    "compute_fap_score": "pie",
    "compute_synergy": "pie",
    "decoder_rows": "decoder",
    "discover_shared": "shared",
    "demo_clt_path": "data",
    "demo_model_path": "data",
    "empty_sparse": "synergy_fill",
    "evaluate_interpretation": "pie",
    "explain_selection": "select",
    "fap_synergy_reranking": "pie",
    "fill_sparse_rows": "synergy_fill",
    "SparsePairs": "synergy_pairs",
    "greedy_select": "select",
    "greedy_select_many": "select",
    "improve_by_swaps": "select",
    "interpret_circuit": "interpret.circuit",
    "interpret_feature": "pie",
    "load_behavior": "behaviors",
    "load_model": "replacement_model",
    "measure_behavioral_importance": "pie",
    "measure_reconstruction": "reconstruction",
    "missed_mass": "missed",
    "open_corpus": "corpora",
    "open_dump": "dump",
    "pair_synergy": "synergy_stats",
    "pie_circuit_discovery": "pie",
    "plant": "planted",
    "prune_features": "pie",
    "redundancy": "decoder",
    "times": "interventions",
    "top_k": "select",
    "top_k_per_layer": "select",
    "top_synergies": "synergy_stats",
    "write_report": "report",
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
