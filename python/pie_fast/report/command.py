"""The command that makes a run again, from its settings: what is not a default, and the inputs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pie_fast.behaviors import registry

#: setting, option, and the value that need not be said
_OPTIONS = (
    ("unit", "--unit", "feature"),
    ("method", "--method", "auto"),
    ("rank_by", "--rank-by", "mean_abs"),
    ("synergy", "--synergy-form", "clipped"),
    ("bonus", "--bonus", "mean"),
    ("metric", "--metric", None),
    ("baseline", "--baseline", None),
    ("gradient", "--gradient", "full"),
    ("direction", "--direction", "noising"),
    ("estimator", "--estimator", "gradient-difference"),
    ("pool_factor", "--pool-factor", 4.0),
    ("stability", "--stability", 10),
    ("pairs", "--pairs", 0),
    ("missed", "--missed", 0),
    ("batch_size", "--batch-size", 32),
    ("seed", "--seed", 0),
    ("ignore_positions", "--ignore-positions", "auto"),
)


def discover_command(result: Mapping[str, Any]) -> str:
    """`pie-fast discover` with the options of a run; the behaviour's file, if it was one, is not
    known and appears by the behaviour's name.
    """
    settings = result["settings"]
    words = ["pie-fast", "discover"]
    for name in ("model", "clt", "behavior"):
        words += [f"--{name}", str(settings.get(name, name.upper()))]
    words += _budget(result)
    for name, option, default in _OPTIONS:
        value = settings.get(name, default)
        if value is not None and value != default:
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    for name, value in (settings.get("method_options") or {}).items():
        words += ["--method-option", f"{name}={value}"]
    if settings.get("curve") is False:
        words.append("--no-curve")
    words += _types(settings.get("dtypes") or {})
    if settings.get("behavior") in registry.TASKS:
        words += ["--prompts", str(settings["n_selection"] + settings["n_held_out"])]
    return shlex.join([*words, "--out", "RUN"])


def _budget(result: Mapping[str, Any]) -> list[str]:
    choice, settings = result.get("budget_choice"), result["settings"]
    if not choice:
        return ["--budget", str(settings.get("budget", len(result["features"])))]
    if settings.get("knee"):
        return ["--budget", "knee"]
    return ["--budget", "auto", "--target-fidelity", f"{choice['target_fidelity']:g}"]


def _types(dtypes: Mapping[str, Any]) -> list[str]:
    words = []
    if dtypes.get("model", "float32") != "float32":
        words += ["--dtype", str(dtypes["model"])]
    if dtypes.get("autocast"):
        words += ["--autocast", str(dtypes["autocast"])]
    return words
