"""Options in TOML: a `PieFastError`, or values that the command takes."""

from __future__ import annotations

from _fuzzing import folder, fuzz, instrumented

with instrumented():
    from pie_fast.cli.config import read_config
    from pie_fast.errors import PieFastError
import typer

from pie_fast.cli import app

COMMAND = typer.main.get_command(app).commands["discover"]
CONTEXT = COMMAND.make_context("discover", [], resilient_parsing=True)
FILE = folder() / "run.toml"


def one(data: bytes) -> None:
    FILE.write_bytes(data)
    try:
        found = read_config(CONTEXT, FILE)
    except PieFastError as error:
        assert str(FILE) in str(error), error
    else:
        assert set(found) <= {option.name for option in COMMAND.params}


fuzz(one)
