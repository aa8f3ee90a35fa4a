"""`select`: a selection from a dump, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pie_fast.cli.common import (
    Bonus,
    BudgetOption,
    ForceOption,
    Form,
    JsonOption,
    Method,
    RankBy,
    RankByOption,
    SeedOption,
    at_least,
    check_place,
    command_line,
    open_noting,
    print_json,
    write_json_at,
)
from pie_fast.cli.engines import (
    AddressOption,
    EngineName,
    EngineOption,
    ScratchOption,
    WorkersOption,
    scoring_engine,
)
from pie_fast.cli.speech import reporter
from pie_fast.method_names import DUMP_METHODS

# Those that need the model are known too, so that they are refused with what to do.
MethodOption = Annotated[
    Method, typer.Option("--method", metavar="|".join(DUMP_METHODS), help="The selector.")
]
FormOption = Annotated[Form, typer.Option("--synergy-form", help="Clipped at 0, or signed.")]
BonusOption = Annotated[Bonus, typer.Option("--bonus", help="Mean or sum of the synergies.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("select")(select)


def select(
    dump: Annotated[str, typer.Argument(help="A feature dump: a folder or a URL.")],
    budget: BudgetOption,
    method: MethodOption = Method["fap"],
    synergy: Annotated[
        Path | None,
        typer.Option("--synergy", help="A synergy file; by default the dump's own."),
    ] = None,
    rank_by: RankByOption = RankBy.mean_abs,
    form: FormOption = Form.clipped,
    bonus: BonusOption = Bonus.mean,
    seed: SeedOption = 0,
    must_include: Annotated[
        str | None,
        typer.Option("--must-include", help="Taken first: L5:42,L7:1, ids, or a file of them."),
    ] = None,
    must_exclude: Annotated[
        str | None, typer.Option("--must-exclude", help="Never taken; likewise.")
    ] = None,
    max_per_layer: Annotated[
        int | None,
        typer.Option("--max-per-layer", callback=at_least(0), help="At most so many of a layer."),
    ] = None,
    swaps: Annotated[
        int, typer.Option("--swaps", callback=at_least(0), help="Exchanges that may follow.")
    ] = 0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell each step's score, bonus and runner-up.")
    ] = False,
    engine: EngineOption = EngineName["local"],
    address: AddressOption = None,
    workers: WorkersOption = None,
    scratch: ScratchOption = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Where the selection goes: a file or a URL."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Select K features from saved activations and attributions."""
    from pie_fast.cli.given import feature_ids
    from pie_fast.constrained import Constraints, select_constrained
    from pie_fast.selectors import Options, select_features
    from pie_fast.synergy_matrix import SynergyMatrix

    if out is not None:
        check_place(out, force=force)
    options = Options(method.value, rank_by.value, form.value, bonus.value, seed)
    needed = options.regime(budget) == "fap-synergy"
    if synergy is not None and not needed:
        reporter().note(f"--synergy is not read: {method.value} of {budget} needs no synergies")
    with scoring_engine(engine, address, workers, scratch) as scorer:
        opened = open_noting(dump, scorer, scratch)
        file = synergy or opened.path / "synergy.safetensors"
        matrix = SynergyMatrix.load(file) if needed and (synergy or file.exists()) else None
        sizes = opened.n_layers, opened.n_features
        constraints = Constraints(
            tuple(feature_ids("--must-include", must_include, *sizes)),
            tuple(feature_ids("--must-exclude", must_exclude, *sizes)),
            max_per_layer,
            swaps,
        )
        if explain or constraints != Constraints():
            chosen, steps = select_constrained(opened, budget, options, matrix, constraints)
        else:
            chosen, steps = select_features(opened, budget, options, matrix), []
    content: dict[str, Any] = {
        "features": chosen.listed(),
        "selector": chosen.selector,
        "settings": chosen.settings,
        "n_layers": opened.n_layers,
        "n_features": opened.n_features,
        "behavior": opened.manifest.get("behavior"),
        "metric": opened.manifest.get("metric"),
        "baseline": opened.manifest.get("baseline"),
    }
    if explain:
        content["steps"] = steps
    if out is not None:
        write_json_at(out, {**content, "command": command_line()})
    if as_json:
        print_json(content)
    else:
        from pie_fast.cli.tables import print_selection, print_steps

        print_selection(content, out)
        print_steps(content.get("steps", ()))
