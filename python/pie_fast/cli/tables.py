"""What commands print for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pie_fast.estimate import human

if TYPE_CHECKING:
    from pie_fast.forecast import Forecast


def print_selection(content: Mapping[str, Any], out: str | None) -> None:
    """The features of a selection, in order."""
    table = Table(title=f"{len(content['features'])} features by {content['selector']}")
    for name in ("rank", "feature", "score"):
        table.add_column(name, justify="right")
    for row in content["features"]:
        table.add_row(str(row["rank"]), f"L{row['layer']}:{row['index']}", f"{row['score']:.4f}")
    console = Console()
    console.print(table)
    if out is not None:
        console.print(f"written to {out}", highlight=False)


def print_steps(steps: Iterable[Mapping[str, Any]]) -> None:
    """Why each step of a selection took what it took."""
    for step in steps:
        after = step["runner_up"]
        second = "nothing else remained" if after is None else f"runner-up {after} at "
        value = "" if after is None else f"{step['runner_up_value']:.4g}"
        print(
            f"{step['feature']}: score {step['score']:.4g}, bonus {step['bonus']:.4g}; "
            f"{second}{value}"
        )


def print_result(result: Mapping[str, Any], folder: Path) -> None:
    """A whole run: the circuit, how faithful it is, and where the files are."""
    console = Console()
    settings = result["settings"]
    console.print(_features(result))
    console.print(_evaluation(result["evaluation"]))
    if result["curves"]:
        console.print(_curve(result["curves"]))
    if choice := result["budget_choice"]:
        console.print(_choice(choice), highlight=False)
    if missed := result["missed_mass"]:
        console.print(
            f"missed mass: {missed['mass']:.3f} of {missed['metric']} over the "
            f"{missed['n_rejected']} features not kept; none of them does more than "
            f"{missed['upper']:.3f} (root mean square over prompts) with confidence "
            f"{missed['confidence']:g}; all features do {missed['whole']:.3f}; "
            f"{missed['n_subsets']} random halves",
            highlight=False,
        )
    spent = sum(result["timings"].values())
    console.print(
        f"kept {len(result['features'])} of {result['n_active']} active {result['unit']}s "
        f"({result['n_dictionary']} features in the dictionary), "
        f"interpreted {result['n_interpreted']}; "
        f"behaviour {settings['behavior']}, baseline {settings['baseline']}, "
        f"selector {result['selector']} ({_passes(result['cost'])}); {spent:.1f} s",
        highlight=False,
    )
    files = [folder / name for name in ("result.json", "run.toml", "dump")]
    there = ", ".join(str(file) for file in files if file.exists())
    after = f"pie-fast interpret {folder}, pie-fast report {folder} -o report.html"
    for line in (f"files: {there}", f"next: {after}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)  # to be copied


def _passes(cost: Mapping[str, float]) -> str:
    return f"{cost['forward']:g} forward and {cost['backward']:g} backward passes"


def print_evaluation(evaluation: Mapping[str, Any], title: str | None = None) -> None:
    """The figures of one circuit."""
    Console().print(_evaluation(evaluation, title))


def _choice(choice: Mapping[str, Any]) -> str:
    where = f"on {choice['n_prompts']} other held-out prompts"
    if "interval" in choice:
        low, high = choice["interval"]
        return (
            f"budget {choice['budget']}: the knee of the curve of log KL up to "
            f"K={choice['tried'][-1]['budget']}, between {low} and {high} with confidence "
            f"{choice['confidence']:g}, {where}"
        )
    return (
        f"budget {choice['budget']}: the smallest of {len(choice['tried'])} tried whose fidelity "
        f"is {choice['target_fidelity']:g} or more with confidence {choice['confidence']:g}, "
        f"{where}"
    )


def _features(result: Mapping[str, Any]) -> Table:
    """A row a feature, or node; a feature of several nodes is told at each."""
    unit, ablation = result["unit"], result["ablation"]
    table = Table(title=f"The {len(result['features'])} {unit}s of the circuit", expand=True)
    table.add_column("", justify="right")
    table.add_column(unit)
    table.add_column("score", justify="right")
    if ablation:
        table.add_column("|ablation|", justify="right")
    stable = "stability" in result["features"][0]
    if stable:
        table.add_column("stable", justify="right")
    table.add_column("what it does", ratio=1)
    labels = {(one["layer"], one["index"]): one["label"] for one in result["interpretations"]}
    for row, feature in enumerate(result["features"]):
        name = f"L{feature['layer']}:{feature['index']}"
        table.add_row(
            str(feature["rank"]),
            f"{name} at {feature['slot']}" if "slot" in feature else name,
            f"{feature['score']:.3f}",
            *([f"{ablation['mean_abs_effect'][row]:.3f}"] if ablation else []),
            *([f"{feature['stability']:.0%}"] if stable else []),
            Text(labels[feature["layer"], feature["index"]]),
        )
    return table


def _evaluation(evaluation: Mapping[str, Any], title: str | None = None) -> Table:
    usual = f"Against the full model, {evaluation['n_prompts']} held-out prompts"
    table = Table(title=title or usual)
    for name in ("", "errors kept", "errors dropped"):
        table.add_column(name, justify="left" if not name else "right")
    for key in (
        "behavioral_fidelity",
        "mean_kl",
        "mean_kl_reverse",
        "faithfulness",
        "completeness",
        "top1_agreement",
    ):
        cells = [_figure(evaluation[f"error_{error}"], key) for error in ("keep", "drop")]
        table.add_row(key.replace("_", " "), *cells)
    return table


def _figure(summary: Mapping[str, Any], key: str) -> str:
    value, interval = summary[key], summary["intervals"][key]
    if value is None:
        return "-"
    spread = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{value:.3f}{spread}"


def _curve(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    table = Table(title="Fidelity over the budget K")
    table.add_column("K", justify="right", min_width=3)
    for name in curves:
        table.add_column(name.replace("-", " "), justify="left", min_width=11)
    budgets = sorted({int(point["budget"]) for curve in curves.values() for point in curve})
    for k in budgets:
        cells = []
        for curve in curves.values():
            found = [point["fidelity"] for point in curve if point["budget"] == k]
            cells.append(_bar(found[0]) if found else "")
        table.add_row(str(k), *cells)
    return table


def _bar(value: float, width: int = 5) -> str:
    return f"{value:.3f} " + "█" * round(value * width)


def print_forecast(told: Forecast) -> None:
    """Model calls by stage, memory by part, disk and time."""
    table = Table(title="model calls, in prompts")
    for name in ("stage", "", "forward", "backward"):
        table.add_column(name, justify="left" if name in ("stage", "") else "right")
    for stage in told.stages:
        how = ("just" if stage.exact else "at most") if stage.known else "not known before"
        table.add_row(stage.name, how, str(stage.cost.forward), str(stage.cost.backward))
    table.add_row("all", "", str(told.total.forward), str(told.total.backward), style="bold")
    console = Console()
    console.print(table)
    splits = (
        f"{told.n_prompts[name]} {name.replace('_', '-')} prompts of {told.n_tokens[name]} tokens"
        for name in told.n_prompts
    )
    parts = ", ".join(f"{name} {human(size)}" for name, size in vars(told.memory).items() if size)
    measured = told.activity.tokens > 0
    active = f"{told.activity.active:.1f} active features a token and layer"
    lines = [
        f"{'; '.join(splits)}",
        f"memory: {human(told.memory.total)} at the peak ({parts})",
        f"disk: {human(told.disk)} for the dump",
        "time: not known without --probe"
        if told.seconds is None
        else f"time: up to about {told.seconds:.0f} s in the model",
        f"{active}, {'measured' if measured else 'assumed, no two tokens sharing one'}",
    ]
    for line in lines:
        console.print(line, highlight=False)
