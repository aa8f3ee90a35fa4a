"""What a run says of itself, as rows of text: the same in every format of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pie_fast.report.run import Run

#: figures of an evaluation, what they are called, and what they say
_FIGURES = (
    ("behavioral_fidelity", "fidelity", "1 − mean KL, at least 0"),
    ("mean_kl", "mean KL", "KL(model ‖ circuit), nats"),
    ("mean_kl_reverse", "mean KL, reverse", "KL(circuit ‖ model), nats"),
    ("faithfulness", "faithfulness", "share of the metric that the circuit restores"),
    ("completeness", "completeness", "share that remains without the circuit; low is good"),
    ("top1_agreement", "same first token", "share of prompts"),
)


class Headline(NamedTuple):
    """The run in one look.

    Attributes:
        behavior: Its name.
        k: Units kept.
        unit: ``feature`` or ``node``.
        selector: What chose them.
        fidelity: Behavioural fidelity.
        interval: Of it, 95%; None where there is none.
        mean_kl: The mean KL with its interval, as text: what is left to say at a fidelity of 0.
        judged_on: What it was measured on.
        n_active: Units active on the prompts of selection.
        n_features: Features kept (of nodes there may be fewer features than nodes).
        n_dictionary: Features of the CLT.
        passes: Forward and backward passes of the selection.
        seconds: Of the whole run.
    """

    behavior: str
    k: int
    unit: str
    selector: str
    fidelity: float
    interval: tuple[float, float] | None
    mean_kl: str
    judged_on: str
    n_active: int
    n_features: int
    n_dictionary: int
    passes: tuple[float, float] | None
    seconds: float

    @property
    def share(self) -> float:
        """Share of the dictionary whose features are kept."""
        return self.n_features / self.n_dictionary if self.n_dictionary else 0.0


def headline(run: Run) -> Headline:
    """The run in one look."""
    result, evaluation = run.result, run.result["evaluation"]
    cost = result.get("cost")
    interval = evaluation.get("intervals", {}).get("behavioral_fidelity")
    split = str(evaluation.get("split", "held_out")).replace("_", "-")
    return Headline(
        behavior=str(result["settings"].get("behavior", run.folder.name)),
        k=len(result["features"]),
        unit=result.get("unit", "feature"),
        selector=str(result.get("selector", "")),
        fidelity=float(evaluation["behavioral_fidelity"]),
        interval=(interval[0], interval[1]) if interval else None,
        mean_kl=_figure(evaluation, "mean_kl"),
        judged_on=f"{evaluation['n_prompts']} {split} prompts",
        n_active=int(result.get("n_active", 0)),
        n_features=int(result.get("n_features", len(result["features"]))),
        n_dictionary=int(result.get("n_dictionary", 0)),
        passes=(cost["forward"], cost["backward"]) if cost else None,
        seconds=sum(result.get("timings", {}).values()),
    )


def figure_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, meaning, and the figure with the CLT's errors kept and dropped."""
    kept, dropped = evaluation.get("error_keep", {}), evaluation.get("error_drop", {})
    return [
        (name, meaning, _figure(kept, key), _figure(dropped, key))
        for key, name, meaning in _FIGURES
    ]


def notes(run: Run) -> list[str]:
    """Sentences on the budget, what was missed, whether the CLT fits, and the contexts."""
    result = run.result
    found = []
    if choice := result.get("budget_choice"):
        found.append(_choice(choice))
    if missed := result.get("missed_mass"):
        found.append(
            f"The {missed['n_rejected']} features not kept together do "
            f"{missed['together']:.3g} of {missed['metric']}; none of them does more than "
            f"{missed['upper']:.3g} with confidence {missed['confidence']:g} "
            f"({missed['n_subsets']} random halves)."
        )
    if (ablation := result.get("ablation")) and ablation.get("pearson_per_prompt") is not None:
        found.append(
            "First-order effects and effects by ablation of single features correlate by "
            f"{ablation['pearson_per_prompt']:.2f} over prompts (Pearson)."
        )
    if fit := result.get("reconstruction"):
        found.append(
            f"The CLT leaves {fit['unexplained']:.1%} of the variance of the MLPs' outputs "
            f"unexplained, on {fit['n_prompts']} prompts."
        )
    if corpus := run.told.get("corpus"):
        sources = ", ".join(f"{name} {n:,}" for name, n in corpus["sources"].items())
        found.append(
            f"Contexts come from {corpus['n_sequences']:,} texts with {corpus['n_counted']:,} "
            f"positions that count ({sources})."
        )
    return found


def quality_rows(quality: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Each measure of `interpretation.json` over the features: name, mean, and of how many."""
    rows = []
    for name, found in quality.items():
        base, _, judge = name.rpartition("_")
        by = {"rule": "by rule", "llm": "by language model"}.get(judge, judge)
        mean = "–" if found["mean"] is None else f"{found['mean']:.2f}"
        counted = f"{found['n']} of {found['n'] + found['n_missing']}"
        rows.append((f"{base.replace('_', ' ')} {by}", mean, counted))
    return rows


def cost_rows(made: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Stage, forward runs, backward runs (a prompt each), and seconds; the total last.

    Args:
        made: `result.json` or `interpretation.json`.
    """
    calls, timings = made.get("model_calls") or {}, made.get("timings") or {}
    stages = dict.fromkeys([*timings, *calls])
    rows = []
    for stage in sorted(stages, key=lambda name: name == "total"):
        spent = calls.get(stage)
        seconds = sum(timings.values()) if stage == "total" else timings.get(stage)
        forward, backward = (f"{spent[k]:,}" if spent else "–" for k in ("forward", "backward"))
        rows.append((stage, forward, backward, "–" if seconds is None else f"{seconds:.2f}"))
    return rows


def setting_rows(run: Run) -> list[tuple[str, str]]:
    """Every choice of the run, in its order; of a fixed budget not how one would be chosen."""
    fixed = not run.result.get("budget_choice")
    return [
        (name.replace("_", " "), _plain(value))
        for name, value in run.result["settings"].items()
        if not (fixed and name in ("target_fidelity", "knee"))
    ]


def version_rows(run: Run) -> list[tuple[str, str]]:
    """What made the result."""
    return [(name, str(v)) for name, v in run.result.get("versions", {}).items()]


def _figure(summary: Mapping[str, Any], key: str) -> str:
    value, interval = summary.get(key), summary.get("intervals", {}).get(key)
    if value is None:
        return "–"
    spread = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{value:.3f}{spread}"


def _choice(choice: Mapping[str, Any]) -> str:
    where = f"on {choice['n_prompts']} held-out prompts that the figures here do not use"
    if "interval" in choice:
        low, high = choice["interval"]
        return (
            f"K={choice['budget']} is the knee of the fidelity curve, between {low} and {high} "
            f"with confidence {choice['confidence']:g}, {where}."
        )
    return (
        f"K={choice['budget']} is the smallest of {len(choice['tried'])} budgets tried whose "
        f"fidelity is {choice['target_fidelity']:g} or more with confidence "
        f"{choice['confidence']:g}, {where}."
    )


def _plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "–"
    return str(value)
