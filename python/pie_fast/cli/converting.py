"""`convert`: transcoders into the circuit-tracer layout, and Delphi caches into feature dumps."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pie_fast.cli.common import ForceOption, JsonOption, at_least, print_json
from pie_fast.cli.saved import print_made
from pie_fast.cli.speech import reporter, spoken


class StoredDtype(StrEnum):
    """How weights are stored."""

    f32 = "f32"
    bf16 = "bf16"
    f16 = "f16"


class _DefaultsToClt(TyperGroup):
    """`convert SRC DST` is `convert clt SRC DST`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["clt", *args]
        return super().resolve_command(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    convert = typer.Typer(
        cls=_DefaultsToClt,
        help="`convert SRC DST`: a transcoder in any format as a circuit-tracer folder.",
    )
    convert.command("clt")(spoken(convert_clt))
    convert.command("delphi")(spoken(convert_delphi))
    app.add_typer(convert, name="convert")


def convert_clt(
    source: Annotated[str, typer.Argument(help="A transcoder: folder or hub id.")],
    target: Annotated[Path, typer.Argument(help="The folder to make.")],
    dtype: Annotated[StoredDtype, typer.Option("--dtype", help="Of weights.")] = StoredDtype.f32,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a transcoder in the circuit-tracer layout; goes on where it was stopped."""
    from pie_fast.clt.loading import load_clt
    from pie_fast.clt.writing import write_circuit_tracer

    clt = load_clt(source, lazy_encoder=True)
    with reporter().stage("convert") as advance:
        write_circuit_tracer(clt, target, dtype=dtype.name.upper(), force=force, progress=advance)
    content = {
        "path": str(target),
        "n_layers": clt.n_layers,
        "n_features": clt.n_features,
        "d_model": clt.d_model,
        "dtype": dtype.value,
    }
    if as_json:
        print_json(content)
    else:
        print(f"{target}: {clt.n_layers} layers of {clt.n_features} features")


def convert_delphi(
    source: Annotated[Path, typer.Argument(help="The latents folder, or one module of it.")],
    target: Annotated[Path, typer.Argument(help="The dump to make.")],
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer", callback=at_least(0), help="Of a module whose name does not say its layer."
        ),
    ] = None,
    n_features: Annotated[
        int | None,
        typer.Option("--n-features", callback=at_least(1), help="Width, if the files fall short."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a dump of a Delphi latent cache: activations only, no attributions."""
    from pie_fast.delphi import convert_delphi as convert_cache

    with reporter().stage("convert") as advance:
        made = convert_cache(
            source, target, layer=layer, n_features=n_features, force=force, progress=advance
        )
    print_made(made, as_json=as_json)
