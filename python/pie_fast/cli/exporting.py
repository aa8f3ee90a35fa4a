"""The command that writes a run for other tools: `export`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from pie_fast.cli.common import (
    DeviceOption,
    ForceOption,
    JsonOption,
    Metric,
    OutOption,
    RunBehaviorOption,
    RunCltOption,
    RunModelOption,
    at_least,
    print_json,
)
from pie_fast.cli.speech import reporter


class Target(StrEnum):
    """What a run can be written as."""

    circuit_tracer = "circuit-tracer"
    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    run: Annotated[Path, typer.Argument(help="A run of `discover` or `demo --out`.")],
    to: Annotated[
        Target,
        typer.Option("--to", help="A graph for circuit-tracer and Neuronpedia, or a table."),
    ],
    out: OutOption,
    prompt: Annotated[
        int | None,
        typer.Option(
            "--prompt",
            callback=at_least(0),
            help="Graph: a selection prompt's number, by default 0.",
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Graph: of a text instead; its answer is the likeliest token."),
    ] = None,
    metric: Annotated[
        Metric | None,
        typer.Option("--metric", help="Graph: what effects are on; the run's, of a text logit."),
    ] = None,
    edge_share: Annotated[
        float | None,
        typer.Option(
            "--edge-share", help="Graph: links with this share of all influence, by default 0.98."
        ),
    ] = None,
    slug: Annotated[
        str | None, typer.Option("--slug", help="Graph: its name, by default BEHAVIOR-PROMPT.")
    ] = None,
    scan: Annotated[
        str | None,
        typer.Option("--scan", help="Graph: where viewers find feature pages, by default the CLT."),
    ] = None,
    model: RunModelOption = None,
    clt: RunCltOption = None,
    behavior: RunBehaviorOption = None,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run as an attribution graph of one prompt (into a folder), or as a table."""
    choices = {
        "prompt": prompt,
        "text": text,
        "metric": metric and metric.value,
        "edge_share": edge_share,
        "slug": slug,
        "scan": scan,
    }
    sources = {"model": model, "clt": clt, "behavior": behavior}
    if to is not Target.circuit_tracer:
        _refuse(to, **{**choices, **sources})
        summary = _table(run, to, out, force)
    elif text is not None and prompt is not None:
        raise typer.BadParameter("--prompt and --text exclude each other; give one")
    else:
        summary = _graph(run, out, choices, {**sources, "device": device}, force)
    if as_json:
        print_json(summary)
    else:
        typer.echo(f"{_counted(summary)} written to {summary['file']}")


def _counted(summary: dict[str, Any]) -> str:
    if "rows" in summary:
        return f"{summary['rows']} rows"
    return (
        f"{summary['nodes']} nodes, {summary['feature_nodes']} feature nodes of "
        f"{summary['features']} features, {summary['links']} links, "
        f"{summary['supernodes']} supernodes"
    )


def _refuse(to: Target, **of_graphs: object) -> None:
    for name, value in of_graphs.items():
        if value is not None:
            option = name.replace("_", "-")
            raise typer.BadParameter(f"--{option} is of graphs; --to {to.value} writes a table")


def _table(run: Path, to: Target, out: Path, force: bool) -> dict[str, Any]:
    from pie_fast.discovered_run import DiscoveredRun
    from pie_fast.exchange import feature_rows, write_table
    from pie_fast.outputs import check_absent

    check_absent(out, force=force)
    rows = feature_rows(DiscoveredRun(run).told, where=str(run))
    return {"file": str(write_table(out, rows, to.value)), "rows": len(rows)}


def _graph(
    run: Path, out: Path, choices: dict[str, Any], loading: dict[str, Any], force: bool
) -> dict[str, Any]:
    from pie_fast.discovered_run import DiscoveredRun
    from pie_fast.exchange import write_graph
    from pie_fast.outputs import check_absent
    from pie_fast.run_graph import GraphChoices, graph_of_run

    given = {name: value for name, value in choices.items() if value is not None}
    discovered, chosen = DiscoveredRun(run), GraphChoices(**given)
    check_absent(out / f"{chosen.slug_of(discovered)}.json", force=force)
    graph = graph_of_run(discovered, chosen, **loading, reporter=reporter())
    return {
        "file": str(write_graph(out, graph)),
        "slug": graph.slug,
        "nodes": len(graph.nodes),
        "feature_nodes": len(graph.features),
        "features": len({(node.layer, node.index) for node in graph.features}),
        "links": len(graph.links),
        "supernodes": len(graph.supernodes),
        # circuit-tracer's own pages draw only the supernodes that stand in the address
        "query": urlencode(
            {"slug": graph.slug, "supernodes": json.dumps([[n, *i] for n, i in graph.supernodes])}
        ),
    }
