"""What a run will take: the command `plan`, and what others say and refuse before heavy work."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Estimator,
    EstimatorOption,
    Gradient,
    GradientOption,
    HooksOption,
    IgnoreOption,
    JsonOption,
    LazyOption,
    Loading,
    Method,
    MetricOption,
    ModelOption,
    PromptsOption,
    SeedOption,
    Unit,
    at_least,
    print_json,
)
from pie_fast.cli.discovering import (
    AnyBudgetOption,
    AnyMethodOption,
    MethodOptionsOption,
    MissedOption,
    PairsOption,
    StabilityOption,
    UnitOption,
    budget_of,
    read_plan,
)

if TYPE_CHECKING:
    from pie_fast.behaviors import Behavior
    from pie_fast.estimate import Shape
    from pie_fast.forecast import Forecast
    from pie_fast.plan import Plan
    from pie_fast.progress import Reporter
    from pie_fast.replacement_model import ReplacementModel


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(
    model: ModelOption,
    clt: CltOption,
    behavior: BehaviorOption,
    budget: AnyBudgetOption,
    unit: UnitOption = Unit.feature,
    stability: StabilityOption = 10,
    pairs: PairsOption = 0,
    missed: MissedOption = 0,
    method: AnyMethodOption = Method["auto"],
    method_option: MethodOptionsOption = None,
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
    dtype: DtypeOption = Dtype.float32,
    autocast: AutocastOption = None,
    ignore_positions: IgnoreOption = "auto",
    lazy_encoder: LazyOption = False,
    hooks: HooksOption = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Load the model and measure a few prompts: time, activity."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what `discover` would take: model calls, memory, disk, and with --probe time."""
    chosen = read_plan(
        {
            "budget": budget_of(budget),
            "knee": budget == "knee",
            "unit": unit.value,
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
        {"method": method.value, "seed": seed},
        method_option or [],
    )
    from pie_fast.forecast import forecast

    how = Loading(model, clt, device, dtype, autocast, ignore_positions, lazy_encoder, hooks)
    if probe:
        loaded, (found,) = how.load_with([behavior], prompts, seed)
        told = _measured(loaded, found, chosen, n_prompts=batch_size)
    else:
        found = _behavior_only(model, behavior, prompts, seed)
        told = forecast(chosen, found, _shape(how), dtype=dtype.value)
    if as_json:
        print_json(told.to_dict())
    else:
        from pie_fast.cli.tables import print_forecast

        print_forecast(told)


def ask(
    loaded: ReplacementModel,
    found: Behavior,
    chosen: Plan,
    out: Path,
    reporter: Reporter,
    *,
    ignore: bool,
    only_capture: bool = False,
) -> None:
    """Before heavy work: tell who watches what it takes, and refuse what cannot fit.

    Raises:
        PieFastError: Memory or disk would not do, and `ignore` is not set.
    """
    from pie_fast.errors import PieFastError
    from pie_fast.estimate import check_fits
    from pie_fast.model import is_out_of_memory
    from pie_fast.probe import memory_left_on

    try:
        told = _measured(loaded, found, chosen, only_capture=only_capture)
        if reporter.visible and told.fits(memory_left_on(loaded.device)):
            # Only a batch of the run's own size tells how long one takes.
            size = chosen.batch_size
            told = _measured(loaded, found, chosen, only_capture=only_capture, n_prompts=size)
    except PieFastError:
        return  # the run itself says what is wrong, of all prompts
    except RuntimeError as error:
        if is_out_of_memory(error):
            return  # likewise
        raise
    if not ignore:
        # What is loaded is no longer part of what is left.
        needed = replace(told.memory, weights=0, encoders=0)
        folder = next(p for p in (out, *out.absolute().parents) if p.exists())
        disk_left = shutil.disk_usage(folder).free
        check_fits(needed, memory_left_on(loaded.device), told.disk, disk_left)
    if reporter.visible:
        reporter.note(told.sentence)


def check_loadable(how: Loading) -> None:
    """Refuse, by their headers alone, a model and a CLT that are larger than memory.

    Raises:
        PieFastError: With what is needed and what there is.
    """
    from pie_fast.errors import CheckpointError
    from pie_fast.estimate import Activity, Texts, check_fits, memory
    from pie_fast.model import resolve_device
    from pie_fast.probe import memory_left_on

    where = resolve_device(how.device)
    try:
        shape = _shape(how)
    except CheckpointError:
        return  # not here yet, or of another layout: loading it says what is wrong
    loaded = memory(
        shape,
        Activity.assumed(shape.n_layers),
        Texts(()),
        batch_size=1,
        baseline="zero",
        keeps_prompts=False,
        dtype=how.dtype.value,
    )
    check_fits(replace(loaded, decoders=0), memory_left_on(where), 0, 0)


def _measured(
    loaded: ReplacementModel,
    found: Behavior,
    chosen: Plan,
    *,
    only_capture: bool = False,
    n_prompts: int | None = None,
) -> Forecast:
    """The forecast of a model that is loaded, by its first prompts."""
    from pie_fast.forecast import forecast
    from pie_fast.probe import FEW, probe, shape_of

    switches, metric = chosen.switches(found), chosen.metric or found.metric
    # Effects at the model itself, where the KL has no slope.
    metric = "logprob" if metric == "kl" else metric
    activity = probe(loaded, found, switches, metric, chosen.gradient, n_prompts or FEW)
    dtype = str(loaded.host.dtypes["model"])
    return forecast(
        chosen, found, shape_of(loaded), activity, dtype=dtype, only_capture=only_capture
    )


def _shape(how: Loading) -> Shape:
    """The sizes of a model and a CLT in local folders, by their headers."""
    from pie_fast.clt.loading import open_clt
    from pie_fast.errors import CheckpointError
    from pie_fast.estimate import Shape

    for name in (how.model, how.clt):
        if not Path(name).is_dir():
            raise CheckpointError(
                f"{name}: no such folder; what is on the hub is read with --probe, which loads it"
            )
    clt = open_clt(how.clt)
    return Shape.read(Path(how.model), clt.n_features, clt.n_writes, lazy_encoder=how.lazy_encoder)


def _behavior_only(model: str, behavior: str, n_prompts: int | None, seed: int) -> Behavior:
    """A behaviour, with the model's tokenizer and none of its weights."""
    from pie_fast.behaviors import check_known, load_behavior

    check_known(behavior)
    tokenizer: Any = None
    if any((Path(model) / f).exists() for f in ("tokenizer.json", "tokenizer_config.json")):
        from transformers import AutoTokenizer

        from pie_fast.model.host import usable_tokenizer

        tokenizer = usable_tokenizer(AutoTokenizer.from_pretrained(model))
    return load_behavior(behavior, tokenizer=tokenizer, n_prompts=n_prompts, seed=seed)
