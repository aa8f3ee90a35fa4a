"""What `evaluate --graph` takes, does and prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pie_fast.cli.common import BehaviorOption, Loading, Unit, at_least
from pie_fast.cli.speech import reporter

#: the usual option, which a graph can do without
GraphBehaviorOption = Annotated[str | None, *BehaviorOption.__metadata__]
GraphOption = Annotated[
    Path | None,
    typer.Option(
        "--graph", help="Or a graph of circuit-tracer or Neuronpedia, judged on its own prompt too."
    ),
]
GraphBudgetOption = Annotated[
    int | None,
    typer.Option(
        "--budget", "-k", callback=at_least(1), help="Graph: so many, the most influential ones."
    ),
]
GraphUnitOption = Annotated[
    Unit | None,
    typer.Option(
        "--unit",
        help="Graph: features (default), or nodes, which have no place off its prompt.",
    ),
]


@dataclass(frozen=True)
class Judged:
    """On what a circuit is judged, and how.

    Attributes:
        behavior: A behaviour's name or file.
        n_prompts: Of it, in both splits.
        seed: Of prompts and bootstrap.
        metric: None: the behaviour's own.
        baseline: None: the usual one.
        kl_direction: Of the divergence.
        switches: The other switches by name.
    """

    behavior: str | None
    n_prompts: int | None
    seed: int
    metric: str | None
    baseline: str | None
    kl_direction: str
    switches: Mapping[str, str]


def graph_figures(
    how: Loading,
    judged: Judged,
    file: Path,
    features: Path | None,
    budget: int | None,
    unit: Unit | None,
) -> dict[str, Any]:
    """Fidelity of the K most influential features or nodes of a graph."""
    if features is not None:
        raise typer.BadParameter("--features and --graph exclude each other; give one")
    if budget is None:
        raise typer.BadParameter("--graph needs --budget, how many of its features are kept")
    if judged.metric is not None and judged.behavior is None:
        raise typer.BadParameter("--metric is of a behaviour; a graph's prompt is judged by logit")
    from pie_fast.graph_fidelity import ImportedGraph, evaluate_graph
    from pie_fast.model import Switches

    imported = ImportedGraph.read(file)
    behaviors = [] if judged.behavior is None else [judged.behavior]
    loaded, found = how.load_with(behaviors, judged.n_prompts, judged.seed)
    with reporter().stage("evaluate") as advance:
        return evaluate_graph(
            loaded,
            imported,
            budget,
            behavior=found[0] if found else None,
            unit=(unit or Unit.feature).value,
            baseline=judged.baseline,
            metric=judged.metric,
            kl_direction=judged.kl_direction,
            seed=judged.seed,
            switches=Switches(**judged.switches),
            progress=advance,
        )


def print_graph_figures(figures: Mapping[str, Any]) -> None:
    """Both tables, and what was kept."""
    from rich.console import Console

    from pie_fast.cli.tables import print_evaluation

    console, own, behavior = Console(), figures["prompt"], figures["behavior"]
    console.print(
        f"{figures['graph']}: kept {figures['budget']} {figures['unit']}s",
        highlight=False,
        markup=False,
    )
    print_evaluation(own, f"On the graph's own prompt, baseline {own['switches']['baseline']}")
    console.print(
        f"with all {figures['n_graph_features']} features of the graph kept: fidelity "
        f"{own['all_features']['behavioral_fidelity']:.3f}",
        highlight=False,
    )
    if behavior is not None:
        split = behavior["split"].replace("_", "-")
        print_evaluation(
            behavior,
            f"On {behavior['n_prompts']} {split} prompts of {behavior['name']}, "
            f"baseline {behavior['switches']['baseline']}",
        )
