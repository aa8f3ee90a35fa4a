"""The command that finds one circuit for several behaviours: `shared`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pie_fast.cli.common import (
    AutocastOption,
    BaselineOption,
    BatchOption,
    BudgetOption,
    CltOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    ForceOption,
    HooksOption,
    IgnoreOption,
    JsonOption,
    LazyOption,
    Loading,
    ModelOption,
    OutOption,
    PromptsOption,
    ResumeOption,
    SeedOption,
    at_least,
    command_line,
    print_json,
)
from pie_fast.cli.config import asked
from pie_fast.cli.speech import reporter


class Objective(StrEnum):
    """What is made small: a sum of the behaviours' KLs, the largest, or a front of sums."""

    weighted = "weighted"
    worst = "worst"
    pareto = "pareto"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("shared")(shared)


def shared(
    context: typer.Context,
    model: ModelOption,
    clt: CltOption,
    behavior: Annotated[
        list[str],
        typer.Option(
            "--behavior", "-b", help="Name of a behaviour, or a JSON Lines file; give two or more."
        ),
    ],
    budget: BudgetOption,
    out: OutOption,
    objective: Annotated[
        Objective,
        typer.Option(
            "--objective",
            help="The sum of the behaviours' KLs, the worst of them, or also a front over weights.",
        ),
    ] = Objective.weighted,
    weight: Annotated[
        list[float] | None,
        typer.Option(
            "--weight", callback=at_least(0), help="Of each behaviour, in their order; 1 each."
        ),
    ] = None,
    front_steps: Annotated[
        int | None,
        typer.Option(
            "--front-steps", callback=at_least(1), help="Of the front, from weight 0 to 1."
        ),
    ] = None,
    baseline: BaselineOption = None,
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
    as_json: JsonOption = False,
) -> None:
    """Find one circuit for several behaviours under one budget."""
    from pie_fast.outputs import check_new_folder

    # Before minutes of work: what can be refused at once is.
    check_new_folder(out, force=force, resume=resume)
    from pie_fast.shared import discover_shared

    how = Loading(model, clt, device, dtype, autocast, ignore_positions, lazy_encoder, hooks)
    loaded, found = how.load_with(behavior, prompts, seed)
    result = discover_shared(
        loaded,
        found,
        budget,
        objective=objective.value,
        weights=weight or None,
        front_steps=front_steps,
        baseline=baseline and baseline.value,
        batch_size=batch_size,
        seed=seed,
        out=out,
        force=force,
        resume=resume,
        command=command_line(),
        asked=asked(context),
        reporter=reporter(),
    )
    if as_json:
        print_json({**result, "folder": str(out)})
    else:
        from pie_fast.cli.shared_tables import print_shared

        print_shared(result, out)
