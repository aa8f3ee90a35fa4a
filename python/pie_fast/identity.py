"""What decides the bytes of a run's result: a run is gone on with by the same and by no other."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from pie_fast._native import __version__ as pie_fast_version
from pie_fast.behaviors import Behavior
from pie_fast.model import Replacer
from pie_fast.plan import Plan
from pie_fast.reconstruction import Reconstruction


def identity_of(
    model: Replacer, behavior: Behavior, plan: Plan, fit: Reconstruction
) -> dict[str, Any]:
    """Of a run of `pie_fast.discover`, as plain values."""
    return {
        "plan": {**asdict(plan), "options": vars(plan.options)},
        "model": model.host.name,
        **model.setting,
        "behavior": {"name": behavior.name, "hash": behavior.hash},
        "unexplained": float(f"{fit.unexplained:.3g}"),  # of the weights, whatever they are called
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What makes a result."""
    names = ("torch", "transformers", "transformer-lens", "numpy", "safetensors")
    return {
        "python": platform.python_version(),
        "pie-fast": pie_fast_version,
        **{name: version(name) for name in names},
    }
