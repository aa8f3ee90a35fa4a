"""The command that changes features by hand: `intervene`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pie_fast.cli.common import (
    AutocastOption,
    CltOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    Frozen,
    HooksOption,
    IgnoreOption,
    JsonOption,
    LazyOption,
    Loading,
    ModelOption,
    SeedOption,
    at_least,
    print_json,
)
from pie_fast.cli.speech import reporter
from pie_fast.types import FeatureId

if TYPE_CHECKING:
    from pie_fast.interventions import Intervention, Positions

_FORM = re.compile(r"(?P<feature>[^@=]+)(?:@(?P<at>[^=]*))?=(?P<value>.+)")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("intervene")(intervene)


def intervene(
    model: ModelOption,
    clt: CltOption,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Text, special tokens not in it.")],
    set_to: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FEATURE[@POSITIONS]=VALUE",
            help="L5:42@3=0, L5:42@2:5=1.5, L5:42=0 for every position (repeatable).",
        ),
    ] = None,
    times: Annotated[
        list[str] | None,
        typer.Option(
            "--times",
            metavar="FEATURE[@POSITIONS]=FACTOR",
            help="Scale what the feature has there (repeatable; after all of --set).",
        ),
    ] = None,
    generate: Annotated[
        int, typer.Option("--generate", callback=at_least(0), help="Also so many new tokens.")
    ] = 0,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", callback=at_least(0), help="Of --generate; 0 takes the likeliest."
        ),
    ] = 0.0,
    top: Annotated[int, typer.Option("--top", callback=at_least(1), help="Next tokens shown.")] = 5,
    attention: Annotated[
        Frozen, typer.Option("--attention", help="Attention patterns.")
    ] = Frozen.recompute,
    activations: Annotated[
        Frozen, typer.Option("--activations", help="MLP outputs, and what features have.")
    ] = Frozen.recompute,
    norms: Annotated[
        Frozen, typer.Option("--norms", help="What norms divide by.")
    ] = Frozen.recompute,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.float32,
    autocast: AutocastOption = None,
    ignore_positions: IgnoreOption = "auto",
    lazy_encoder: LazyOption = False,
    hooks: HooksOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set, ablate or scale features on a prompt, and see what the model says then."""
    chosen = read_interventions(set_to or (), times or ())
    how = Loading(model, clt, device, dtype, autocast, ignore_positions, lazy_encoder, hooks)
    loaded = how.load()
    frozen = {"attention": attention, "activations": activations, "norms": norms}
    switches = {name: how.value for name, how in frozen.items()}
    with reporter().stage("intervene"):
        found = loaded.intervene(prompt, chosen, **switches)
    summary = found.to_dict(top)
    said = found.table(top)
    if generate:
        with reporter().stage("generate"):
            text = loaded.generate(
                prompt, chosen, max_new_tokens=generate, temperature=temperature, seed=seed
            )
        summary["generated"] = text.to_dict() | {"temperature": temperature, "seed": seed}
        said = f"{said}\n\n{text}"
    if as_json:
        print_json(summary)
    else:
        typer.echo(said)


def read_interventions(set_to: Sequence[str], times: Sequence[str]) -> list[Intervention]:
    """`L5:42@3=0` and the like.

    Raises:
        BadParameter: One has another form, or there is none.
        PieFastError: One names no feature.
    """
    from pie_fast.interventions import Times

    if not set_to and not times:
        raise typer.BadParameter("nothing to do: give --set or --times at least once")
    chosen: list[Intervention] = [_read("--set", text) for text in set_to]
    for text in times:
        feature, positions, factor = _read("--times", text)
        chosen.append((feature, positions, Times(factor)))
    return chosen


def _read(option: str, text: str) -> tuple[FeatureId, Positions, float]:
    match = _FORM.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        return FeatureId.parse(match["feature"]), _positions(match["at"]), float(match["value"])
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} {text!r} is not FEATURE[@POSITIONS]=NUMBER, as L5:42@3=0 or L5:42@2:5=1.5"
        ) from error


def _positions(text: str | None) -> Positions:
    if text is None:
        return None
    if ":" not in text:
        return int(text)
    first, last = text.split(":")
    return slice(int(first) if first else None, int(last) if last else None)
