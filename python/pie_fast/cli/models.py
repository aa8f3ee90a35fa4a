"""Commands that run a model: `demo`, `discover`, `capture`, `synergy`, `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pie_fast.cli.common import (
    Baseline,
    BatchOption,
    BehaviorOption,
    Bonus,
    BudgetOption,
    CltOption,
    DeviceOption,
    Direction,
    Estimator,
    ForceOption,
    Form,
    Gradient,
    JsonOption,
    Metric,
    ModelOption,
    OutOption,
    PromptsOption,
    RankBy,
    RankByOption,
    ResumeOption,
    SeedOption,
    at_least,
    print_json,
    terminal,
)
from pie_fast.cli.selecting import BonusOption, FormOption, Method, MethodOption

if TYPE_CHECKING:
    from pie_fast.behaviors import Behavior
    from pie_fast.replacement_model import ReplacementModel

MetricOption = Annotated[
    Metric | None, typer.Option("--metric", help="By default the behaviour's own.")
]
BaselineOption = Annotated[
    Baseline | None,
    typer.Option("--baseline", help="By default counterfactual where there is one, else mean."),
]
GradientOption = Annotated[Gradient, typer.Option("--gradient", help="Rule of the gradient.")]
DirectionOption = Annotated[Direction, typer.Option("--direction", help="Of the synergy.")]
EstimatorOption = Annotated[Estimator, typer.Option("--estimator", help="Of the synergy.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (demo, discover, capture, synergy, evaluate):
        app.command(command.__name__)(command)


def demo(
    behavior: BehaviorOption = "ioi",
    budget: BudgetOption = 50,
    method: MethodOption = Method.auto,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Keep the run here, not in a temporary folder."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """All of PIE on the embedded model, offline."""
    import tempfile

    from pie_fast.data import demo_clt_path, demo_model_path

    folder = out or Path(tempfile.mkdtemp(prefix="pie-fast-demo-")) / behavior.replace("/", "-")
    _discover(
        str(demo_model_path()),
        str(demo_clt_path()),
        behavior,
        folder,
        plan={"budget": budget},
        options={"method": method.value, "seed": seed},
        device=device,
        n_prompts=None,
        force=force,
        resume=False,
        as_json=as_json,
    )


def discover(
    model: ModelOption,
    clt: CltOption,
    behavior: BehaviorOption,
    budget: BudgetOption,
    out: OutOption,
    method: MethodOption = Method.auto,
    rank_by: RankByOption = RankBy.mean_abs,
    form: FormOption = Form.clipped,
    bonus: BonusOption = Bonus.mean,
    metric: MetricOption = None,
    baseline: BaselineOption = None,
    gradient: GradientOption = Gradient.full,
    direction: DirectionOption = Direction.noising,
    estimator: EstimatorOption = Estimator.gradient_difference,
    pool_factor: Annotated[
        float,
        typer.Option("--pool-factor", callback=at_least(1), help="Pool of max(this * K, 200)."),
    ] = 4,
    curve: Annotated[bool, typer.Option(help="Also measure the fidelity curve.")] = True,
    prompts: PromptsOption = None,
    batch_size: BatchOption = 32,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find, interpret and evaluate the circuit of a behaviour."""
    _discover(
        model,
        clt,
        behavior,
        out,
        plan={
            "budget": budget,
            "metric": metric and metric.value,
            "baseline": baseline and baseline.value,
            "gradient": gradient.value,
            "direction": direction.value,
            "estimator": estimator.value,
            "pool_factor": pool_factor,
            "curve": curve,
            "batch_size": batch_size,
        },
        options={
            "method": method.value,
            "rank_by": rank_by.value,
            "synergy": form.value,
            "bonus": bonus.value,
            "seed": seed,
        },
        device=device,
        n_prompts=prompts,
        force=force,
        resume=resume,
        as_json=as_json,
    )


def capture(
    model: ModelOption,
    clt: CltOption,
    behavior: BehaviorOption,
    out: OutOption,
    metric: MetricOption = None,
    baseline: BaselineOption = None,
    gradient: GradientOption = Gradient.full,
    split: Annotated[str, typer.Option("--split", help="selection or held_out.")] = "selection",
    prompts: PromptsOption = None,
    batch_size: BatchOption = 32,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Capture activations and attributions into a feature dump."""
    from pie_fast.capture import capture as run
    from pie_fast.capture import default_switches
    from pie_fast.model import Switches
    from pie_fast.outputs import check_absent
    from pie_fast.progress import Reporter

    if not resume:
        check_absent(out, force=force)
    loaded, found = _load(model, clt, behavior, device, prompts, seed)
    switches = Switches(baseline.value) if baseline else default_switches(found)
    reporter = Reporter(visible=terminal())
    with reporter.stage("capture") as advance:
        dump = run(
            loaded,
            found,
            out,
            split=split,
            metric=metric and metric.value,
            switches=switches,
            gradient=gradient.value,
            batch_size=batch_size,
            resume=resume,
            force=force,
            progress=advance,
        )
    summary = {
        "dump": str(out),
        "n_prompts": dump.n_prompts,
        "n_entries": int(dump.n_active),
        "n_active_features": len(dump.active_features()),
        "timings": reporter.timings,
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
        int, typer.Option("--pool", callback=at_least(2), help="How many candidates (M).")
    ] = 200,
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
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the pair synergies of a dump's pool; resumes where it was stopped."""
    from pie_fast.dump import open_dump
    from pie_fast.outputs import check_absent
    from pie_fast.progress import Reporter
    from pie_fast.replacement_model import load_model
    from pie_fast.synergy import model_calls
    from pie_fast.synergy_pool import SYNERGY_FILE, measure_dump_synergy

    opened = open_dump(dump)
    check_absent(dump / SYNERGY_FILE, force=force)
    forwards, backwards = model_calls(estimator.value, pool)
    typer.echo(
        f"{forwards} forward and {backwards} backward passes over "
        f"{min(n_prompts, opened.n_prompts)} prompts",
        err=True,
    )
    loaded = load_model(model, clt, device=device)
    reporter = Reporter(visible=terminal())
    with reporter.stage("synergy") as advance:
        matrix = measure_dump_synergy(
            loaded,
            opened,
            pool,
            n_prompts=n_prompts,
            rank_by=rank_by.value,
            estimator=estimator.value,
            direction=direction.value,
            batch_size=batch_size,
            progress=advance,
        )
    summary = {
        "synergy": str(dump / SYNERGY_FILE),
        "pool": len(matrix.pool),
        "estimator": estimator.value,
        "direction": direction.value,
        "n_prompts": matrix.n_prompts,
        "forwards": forwards,
        "backwards": backwards,
        "timings": reporter.timings,
    }
    if as_json:
        print_json(summary)
    else:
        typer.echo(f"synergies of {len(matrix.pool)} features in {summary['synergy']}")


def evaluate(
    model: ModelOption,
    clt: CltOption,
    behavior: BehaviorOption,
    features: Annotated[Path, typer.Option("--features", help="A selection or a result (JSON).")],
    metric: MetricOption = None,
    baseline: BaselineOption = None,
    error: Annotated[str, typer.Option("--error", help="keep or drop.")] = "keep",
    attention: Annotated[
        str, typer.Option("--attention", help="recompute or freeze.")
    ] = "recompute",
    activations: Annotated[
        str, typer.Option("--activations", help="recompute or freeze.")
    ] = "recompute",
    kl_direction: Annotated[
        str, typer.Option("--kl-direction", help="'model||circuit' or 'circuit||model'.")
    ] = "model||circuit",
    prompts: PromptsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep the figures here.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep a selection's features, set the rest to their baseline, compare with the model."""
    from pie_fast.capture import default_switches
    from pie_fast.evaluate import evaluate_circuit
    from pie_fast.model import Switches
    from pie_fast.outputs import check_absent, write_json
    from pie_fast.selectors import read_features

    if out is not None:
        check_absent(out, force=force)
    chosen = read_features(features)
    loaded, found = _load(model, clt, behavior, device, prompts, seed)
    for feature in chosen:
        loaded.clt.check_feature(feature.layer, feature.index)
    switches = Switches(
        baseline.value if baseline else default_switches(found).baseline,
        error,
        attention,
        activations,
    )
    figures = evaluate_circuit(
        loaded,
        [f.to_global(loaded.clt.n_features) for f in chosen],
        found.held_out or found.selection,
        metric=metric.value if metric else found.metric,
        switches=switches,
        mean_of=found.selection,
        kl_direction=kl_direction,
        seed=seed,
    )
    figures["split"] = "held_out" if found.held_out else "selection"
    if out is not None:
        write_json(out, figures)
    if as_json:
        print_json(figures)
    else:
        from pie_fast.cli.tables import print_evaluation

        print_evaluation(figures)


def _load(
    model: str, clt: str, behavior: str, device: str, n_prompts: int | None, seed: int
) -> tuple[ReplacementModel, Behavior]:
    from pie_fast.behaviors import load_behavior
    from pie_fast.replacement_model import load_model

    loaded = load_model(model, clt, device=device)
    found = load_behavior(behavior, tokenizer=loaded.host.tokenizer, n_prompts=n_prompts, seed=seed)
    return loaded, found


def _discover(
    model: str,
    clt: str,
    behavior: str,
    out: Path,
    *,
    plan: dict[str, Any],
    options: dict[str, Any],
    device: str,
    n_prompts: int | None,
    force: bool,
    resume: bool,
    as_json: bool,
) -> None:
    from pie_fast.outputs import check_absent

    # Before minutes of work: what can be refused at once is.
    check_absent(out, force=force)
    from pie_fast.discover import Plan
    from pie_fast.discover import discover as run
    from pie_fast.progress import Reporter
    from pie_fast.selectors import Options

    chosen = Plan(**plan, options=Options(**options))
    reporter = Reporter(visible=terminal())
    with reporter.stage("load"):
        loaded, found = _load(model, clt, behavior, device, n_prompts, options["seed"])
    result = run(loaded, found, chosen, out, reporter=reporter, force=force, resume=resume)
    if as_json:
        print_json({**result, "folder": str(out)})
    else:
        from pie_fast.cli.tables import print_result

        print_result(result, out)
