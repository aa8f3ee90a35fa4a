"""Commands that run a model: `capture`, `synergy`, `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pie_fast.cli.common import (
    AutocastOption,
    BaselineOption,
    BatchOption,
    BehaviorOption,
    CltOption,
    DeviceOption,
    Direction,
    DirectionOption,
    Dtype,
    DtypeOption,
    Error,
    Estimator,
    EstimatorOption,
    ForceOption,
    Frozen,
    Gradient,
    GradientOption,
    HooksOption,
    IgnoreEstimateOption,
    IgnoreOption,
    JsonOption,
    KlDirection,
    LazyOption,
    Loading,
    MetricOption,
    ModelOption,
    OutOption,
    PromptsOption,
    RankBy,
    RankByOption,
    ResumeOption,
    SeedOption,
    Split,
    at_least,
    command_line,
    open_noting,
    print_json,
)
from pie_fast.cli.engines import (
    AddressOption,
    EngineName,
    EngineOption,
    TimeoutOption,
    WorkersOption,
    chosen_engine,
)
from pie_fast.cli.graph_figures import (
    GraphBehaviorOption,
    GraphBudgetOption,
    GraphOption,
    GraphUnitOption,
    Judged,
    graph_figures,
    print_graph_figures,
)
from pie_fast.cli.speech import reporter


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (capture, synergy, evaluate):
        app.command(command.__name__)(command)


def capture(
    model: ModelOption,
    clt: CltOption,
    behavior: BehaviorOption,
    out: OutOption,
    metric: MetricOption = None,
    baseline: BaselineOption = None,
    gradient: GradientOption = Gradient["full"],
    split: Annotated[Split, typer.Option("--split", help="Whose prompts.")] = Split.selection,
    prompts: PromptsOption = None,
    batch_size: BatchOption = 32,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    ignore_positions: IgnoreOption = "auto",
    dtype: DtypeOption = Dtype.float32,
    autocast: AutocastOption = None,
    lazy_encoder: LazyOption = False,
    hooks: HooksOption = None,
    force: ForceOption = False,
    resume: ResumeOption = False,
    ignore_estimate: IgnoreEstimateOption = False,
    engine: EngineOption = EngineName["local"],
    address: AddressOption = None,
    workers: WorkersOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Capture activations and attributions into a feature dump."""
    from pie_fast.capture import capture as run
    from pie_fast.capture import default_switches, split_prompts
    from pie_fast.cli.planning import ask, check_loadable
    from pie_fast.crew import crew_of
    from pie_fast.model import Switches
    from pie_fast.outputs import check_absent
    from pie_fast.plan import Plan
    from pie_fast.reconstruction import LOOKED_AT, measure_reconstruction

    if not resume:
        check_absent(out, force=force, or_else=", or --resume to go on with it", folder=True)
    how = Loading(model, clt, device, dtype, autocast, ignore_positions, lazy_encoder, hooks)
    if not ignore_estimate:
        check_loadable(how)
    loaded, (found,) = how.load_with([behavior], prompts, seed)
    switches = Switches(baseline.value) if baseline else default_switches(found)
    say = reporter()
    fit = measure_reconstruction(loaded, split_prompts(found, split.value)[:LOOKED_AT])
    if fit.warning is not None:
        say.note(fit.warning)
    plan = Plan(
        None,
        metric=metric and metric.value,
        baseline=switches.baseline,
        gradient=gradient.value,
        batch_size=batch_size,
    )
    if split is Split.selection:
        ask(loaded, found, plan, out, say, ignore=ignore_estimate, only_capture=True)
    where = chosen_engine(engine, address, workers, timeout)
    with where as opened, crew_of(loaded, opened) as crew, say.stage("capture") as advance:
        dump = run(
            loaded,
            found,
            out,
            split=split.value,
            metric=metric and metric.value,
            switches=switches,
            gradient=gradient.value,
            batch_size=batch_size,
            resume=resume,
            force=force,
            progress=advance,
            note=say.note,
            crew=crew,
        )
    summary = {
        "dump": str(out),
        "n_prompts": dump.n_prompts,
        "n_entries": int(dump.n_active),
        "n_active_features": len(dump.active_features()),
        "reconstruction": fit.to_dict(),
        "timings": say.timings,
    }
    if as_json:
        print_json(summary)
    else:
        typer.echo(
            f"{summary['n_entries']} entries of {summary['n_active_features']} features on "
            f"{summary['n_prompts']} prompts in {out}"
        )


def synergy(
    dump: Annotated[Path, typer.Argument(help="A feature dump.")],
    model: ModelOption,
    clt: CltOption,
    pool: Annotated[
        int | None,
        typer.Option("--pool", callback=at_least(2), help="Candidates (M); 200 if there are."),
    ] = None,
    estimator: EstimatorOption = Estimator.gradient_difference,
    direction: DirectionOption = Direction.noising,
    rank_by: RankByOption = RankBy.mean_abs,
    n_prompts: Annotated[
        int,
        typer.Option(
            "--prompts", callback=at_least(1), help="At most so many prompts of the dump."
        ),
    ] = 32,
    batch_size: BatchOption = 32,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.float32,
    autocast: AutocastOption = None,
    lazy_encoder: LazyOption = False,
    hooks: HooksOption = None,
    force: ForceOption = False,
    engine: EngineOption = EngineName["local"],
    address: AddressOption = None,
    workers: WorkersOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the pair synergies of a dump's pool; resumes where it was stopped."""
    from pie_fast.outputs import check_absent
    from pie_fast.selectors import check_pool

    opened = open_noting(dump)
    size = check_pool(opened, pool)
    from pie_fast.crew import crew_of
    from pie_fast.synergy import model_calls
    from pie_fast.synergy_pool import SYNERGY_FILE, measure_dump_synergy

    check_absent(dump / SYNERGY_FILE, force=force)
    forwards, backwards = model_calls(estimator.value, size)
    say = reporter()
    say.note(
        f"{forwards} forward and {backwards} backward passes over "
        f"{min(n_prompts, opened.n_prompts)} prompts"
    )
    ignore = opened.manifest.get("ignore_positions")
    loaded = Loading(model, clt, device, dtype, autocast, ignore, lazy_encoder, hooks).load()
    where = chosen_engine(engine, address, workers, timeout)
    with where as found, crew_of(loaded, found) as crew, say.stage("synergy") as advance:
        matrix = measure_dump_synergy(
            loaded,
            opened,
            size,
            n_prompts=n_prompts,
            rank_by=rank_by.value,
            estimator=estimator.value,
            direction=direction.value,
            batch_size=batch_size,
            progress=advance,
            crew=crew,
        )
    summary = {
        "synergy": str(dump / SYNERGY_FILE),
        "pool": len(matrix.pool),
        "estimator": estimator.value,
        "direction": direction.value,
        "n_prompts": matrix.n_prompts,
        "forwards": forwards,
        "backwards": backwards,
        "timings": say.timings,
    }
    if as_json:
        print_json(summary)
    else:
        typer.echo(f"synergies of {len(matrix.pool)} features in {summary['synergy']}")


def evaluate(
    model: ModelOption,
    clt: CltOption,
    behavior: GraphBehaviorOption = None,
    features: Annotated[
        Path | None, typer.Option("--features", help="A selection or a result (JSON).")
    ] = None,
    graph: GraphOption = None,
    budget: GraphBudgetOption = None,
    unit: GraphUnitOption = None,
    metric: MetricOption = None,
    baseline: BaselineOption = None,
    error: Annotated[Error, typer.Option("--error", help="What the CLT misses.")] = Error.keep,
    attention: Annotated[
        Frozen, typer.Option("--attention", help="Attention patterns.")
    ] = Frozen.recompute,
    activations: Annotated[
        Frozen, typer.Option("--activations", help="Activations of the kept features.")
    ] = Frozen.recompute,
    kl_direction: Annotated[
        KlDirection, typer.Option("--kl-direction", help="Of the divergence behind fidelity.")
    ] = KlDirection.from_model,
    prompts: PromptsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    ignore_positions: IgnoreOption = "auto",
    dtype: DtypeOption = Dtype.float32,
    autocast: AutocastOption = None,
    lazy_encoder: LazyOption = False,
    hooks: HooksOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep the figures here.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep what a selection, result or graph names, the rest at its baseline: compare."""
    from pie_fast.outputs import check_absent, write_json

    if out is not None:
        check_absent(out, force=force)
    how = Loading(model, clt, device, dtype, autocast, ignore_positions, lazy_encoder, hooks)
    judged = Judged(
        behavior,
        prompts,
        seed,
        metric and metric.value,
        baseline and baseline.value,
        kl_direction.value,
        {
            "error": error.value,
            "attention": attention.value,
            "activations": activations.value,
        },
    )
    if graph is not None:
        figures = graph_figures(how, judged, graph, features, budget, unit)
    else:
        figures = _selection_figures(how, judged, features, budget=budget, unit=unit)
    if out is not None:
        write_json(out, {**figures, "command": command_line()})
    if as_json:
        print_json(figures)
    elif graph is not None:
        print_graph_figures(figures)
    else:
        from pie_fast.cli.tables import print_evaluation

        print_evaluation(figures)


def _selection_figures(
    how: Loading, judged: Judged, features: Path | None, **of_graphs: object
) -> dict[str, Any]:
    if features is None or judged.behavior is None:
        raise typer.BadParameter("give --features and --behavior, or --graph and --budget")
    for name, value in of_graphs.items():
        if value is not None:
            raise typer.BadParameter(f"--{name} is of --graph; a selection is kept as it is")
    from pie_fast.capture import default_switches
    from pie_fast.evaluate import evaluate_circuit
    from pie_fast.model import Switches
    from pie_fast.selectors import read_circuit
    from pie_fast.slots import Node, Slots, node_ids

    chosen, places = read_circuit(features)
    loaded, (found,) = how.load_with([judged.behavior], judged.n_prompts, judged.seed)
    n_features, slots = loaded.clt.n_features, None
    for feature in chosen:
        loaded.clt.check_feature(feature.layer, feature.index)
    ids = [f.to_global(n_features) for f in chosen]
    if places is not None:
        slots = Slots.having(places, found.selection + found.held_out)
        ids = node_ids(map(Node, chosen, places), slots, n_features)
    with reporter().stage("evaluate") as advance:
        figures = evaluate_circuit(
            loaded,
            ids,
            found.held_out or found.selection,
            metric=judged.metric or found.metric,
            switches=Switches(
                judged.baseline or default_switches(found).baseline, **judged.switches
            ),
            mean_of=found.selection,
            kl_direction=judged.kl_direction,
            seed=judged.seed,
            slots=slots,
            progress=advance,
        )
    return {**figures, "split": "held_out" if found.held_out else "selection"}
