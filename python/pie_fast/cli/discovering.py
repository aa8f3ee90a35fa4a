"""Commands that run all of PIE: `demo`, `discover`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pie_fast.cli.common import (
    AutocastOption,
    BaselineOption,
    BatchOption,
    BehaviorOption,
    Bonus,
    CltOption,
    DeviceOption,
    Direction,
    DirectionOption,
    Dtype,
    DtypeOption,
    Estimator,
    EstimatorOption,
    ForceOption,
    Form,
    Gradient,
    GradientOption,
    HooksOption,
    IgnoreEstimateOption,
    IgnoreOption,
    JsonOption,
    LazyOption,
    Loading,
    Method,
    MetricOption,
    ModelOption,
    OutOption,
    PromptsOption,
    RankBy,
    RankByOption,
    ResumeOption,
    SeedOption,
    Unit,
    at_least,
    command_line,
    print_json,
)
from pie_fast.cli.config import ConfigOption, asked, written
from pie_fast.cli.engines import (
    AddressOption,
    EngineName,
    EngineOption,
    TimeoutOption,
    WorkersOption,
    chosen_engine,
)
from pie_fast.cli.selecting import BonusOption, FormOption
from pie_fast.cli.speech import reporter

if TYPE_CHECKING:
    from pie_fast.engine import Engine
    from pie_fast.plan import Plan

#: budgets that are chosen
_CHOSEN = ("auto", "knee")


def check_budget_text(text: str) -> str:
    """Refuse what is neither `auto` nor `knee` nor a number of features."""
    if text not in _CHOSEN:
        try:
            number = int(text)
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is not a valid integer, and not 'auto' or 'knee'"
            ) from None
        at_least(1)(number)
    return text


def budget_of(text: str) -> int | None:
    """The number of features, None for one that is chosen."""
    return None if text in _CHOSEN else int(text)


AnyBudgetOption = Annotated[
    str,
    typer.Option(
        "--budget",
        "-k",
        callback=check_budget_text,
        metavar="K|auto|knee",
        help="How many features to keep; auto: as many as --target-fidelity needs; knee: of the "
        "fidelity curve.",
    ),
]
TargetOption = Annotated[
    float, typer.Option("--target-fidelity", help="Of --budget auto; between 0 and 1.")
]
StabilityOption = Annotated[
    int,
    typer.Option(
        "--stability",
        callback=at_least(0),
        help="Resamples of the prompts: how often is each feature selected again?",
    ),
]
PairsOption = Annotated[
    int,
    typer.Option(
        "--pairs",
        callback=at_least(0),
        help="Conditional gradient: try the pairs of a shortlist of so many; 0 tries none.",
    ),
]
MissedOption = Annotated[
    int,
    typer.Option(
        "--missed",
        callback=at_least(0),
        help="Random halves of what is not kept, to bound what was missed: 8 or more; 0 skips it.",
    ),
]
UnitOption = Annotated[
    Unit,
    typer.Option("--unit", help="What K counts: features, or nodes, features at a place."),
]
AnyMethodOption = Annotated[
    Method,
    typer.Option("--method", help="The selector; auto: conditional gradient with an anchor."),
]
MethodOptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method-option",
        metavar="KEY=VALUE",
        help="An option of the selector (repeatable); a wrong one tells which there are.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (demo, discover):
        app.command(command.__name__)(command)


def demo(
    context: typer.Context,
    behavior: BehaviorOption = "ioi",
    budget: AnyBudgetOption = "50",
    target_fidelity: TargetOption = 0.9,
    stability: StabilityOption = 5,
    method: AnyMethodOption = Method["auto"],
    method_option: MethodOptionsOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Keep the run here, not in a temporary folder."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """All of PIE on the embedded model, offline."""
    import tempfile

    from pie_fast.data import demo_clt_path, demo_model_path

    folder = out or Path(tempfile.mkdtemp(prefix="pie-fast-demo-")) / behavior.replace("/", "-")
    _discover(
        Loading(str(demo_model_path()), str(demo_clt_path()), device),
        behavior,
        folder,
        # fewer prompts for the synergies of the curve, so that the demo stays within its minute
        plan={
            "budget": budget_of(budget),
            "knee": budget == "knee",
            "target_fidelity": target_fidelity,
            "stability": stability,
            "synergy_prompts": 16,
        },
        options={"method": method.value, "seed": seed},
        method_options=method_option or [],
        n_prompts=None,
        force=force,
        resume=resume,
        asked=asked(context),
        as_json=as_json,
    )


def discover(
    context: typer.Context,
    model: ModelOption,
    clt: CltOption,
    behavior: BehaviorOption,
    budget: AnyBudgetOption,
    out: OutOption,
    unit: UnitOption = Unit.feature,
    target_fidelity: TargetOption = 0.9,
    stability: StabilityOption = 10,
    pairs: PairsOption = 0,
    missed: MissedOption = 0,
    method: AnyMethodOption = Method["auto"],
    method_option: MethodOptionsOption = None,
    rank_by: RankByOption = RankBy.mean_abs,
    form: FormOption = Form.clipped,
    bonus: BonusOption = Bonus.mean,
    metric: MetricOption = None,
    baseline: BaselineOption = None,
    gradient: GradientOption = Gradient["full"],
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
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find, interpret and evaluate the circuit of a behaviour."""
    _discover(
        Loading(model, clt, device, dtype, autocast, ignore_positions, lazy_encoder, hooks),
        behavior,
        out,
        plan={
            "budget": budget_of(budget),
            "knee": budget == "knee",
            "unit": unit.value,
            "target_fidelity": target_fidelity,
            "stability": stability,
            "pairs": pairs,
            "missed": missed,
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
        method_options=method_option or [],
        ignore_estimate=ignore_estimate,
        n_prompts=prompts,
        force=force,
        resume=resume,
        config=written(context),
        where=chosen_engine(engine, address, workers, timeout),
        asked=asked(context),
        as_json=as_json,
    )


def read_plan(plan: dict[str, Any], options: dict[str, Any], method_options: list[str]) -> Plan:
    """The plan that a command line describes.

    Args:
        plan: Fields of `Plan`.
        options: Fields of `pie_fast.selectors.Options`.
        method_options: `KEY=VALUE` each.
    """
    from pie_fast.methods import selector_named
    from pie_fast.plan import Plan
    from pie_fast.selectors import Options

    chosen = Plan(**plan, options=Options(**options))
    if method_options:
        read = selector_named(chosen.method).read_options(method_options)
        chosen = replace(chosen, method_options=read)
    return chosen


def _discover(
    how: Loading,
    behavior: str,
    out: Path,
    *,
    plan: dict[str, Any],
    options: dict[str, Any],
    method_options: list[str],
    ignore_estimate: bool = False,
    n_prompts: int | None,
    force: bool,
    resume: bool,
    config: str | None = None,
    asked: dict[str, Any],
    where: AbstractContextManager[Engine] | None = None,
    as_json: bool,
) -> None:
    from pie_fast.outputs import check_new_folder

    # Before minutes of work: what can be refused at once is.
    check_new_folder(out, force=force, resume=resume)
    from pie_fast.cli.planning import ask, check_loadable
    from pie_fast.crew import crew_of
    from pie_fast.discover import discover as run

    chosen = read_plan(plan, options, method_options)
    if not ignore_estimate:
        check_loadable(how)
    loaded, (found,) = how.load_with([behavior], n_prompts, options["seed"])
    ask(loaded, found, chosen, out, reporter(), ignore=ignore_estimate)
    with where or nullcontext() as engine, crew_of(loaded, engine) as crew:
        result = run(
            loaded,
            found,
            chosen,
            out,
            reporter=reporter(),
            force=force,
            resume=resume,
            command=command_line(),
            config=config,
            asked=asked,
            crew=crew,
        )
    if as_json:
        print_json({**result, "folder": str(out)})
    else:
        from pie_fast.cli.tables import print_result

        print_result(result, out)
