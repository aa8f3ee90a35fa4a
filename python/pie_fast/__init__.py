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
    "DumpWriter": "dump",
    "FeatureDump": "dump",
    "FeatureId": "types",
    "Selection": "types",
    "SelectionStep": "types",
    "explain_selection": "select",
    "greedy_select": "select",
    "greedy_select_many": "select",
    "improve_by_swaps": "select",
    "top_k": "select",
    "SynergyMatrix": "synergy_matrix",
    "pair_synergy": "synergy_stats",
    "top_synergies": "synergy_stats",
    "PieFastError": "errors",
    "DumpError": "errors",
    "PromptTable": "dump",
    "decoder_rows": "decoder",
    "open_dump": "dump",
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
