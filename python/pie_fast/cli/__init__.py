"""The `pie-fast` command: parse, call, print. Heavy imports stand inside the commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from copy import copy
from typing import Annotated, cast

import typer

from pie_fast.cli import (
    converting,
    discovering,
    exporting,
    interpreting,
    intervening,
    models,
    planning,
    reporting,
    resuming,
    saved,
    selecting,
    sharing,
)
from pie_fast.cli.sections import Sectioned
from pie_fast.cli.speech import spoken
from pie_fast.errors import BudgetError, PieFastError
from pie_fast.suggestions import did_you_mean

# Help without rich: its markdown renderer alone takes longer to import than everything else here.
app = typer.Typer(
    name="pie-fast",
    help="Find the small circuit of CLT features behind a language model's behaviour.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    cls=Sectioned,
    invoke_without_command=True,
)


@app.callback()
def _overview(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say the version and stop.")] = False,
) -> None:
    if version:
        from pie_fast._native import __version__

        print(f"pie-fast {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(cast(Sectioned, context.command).overview())


discovering.register(app)
planning.register(app)
sharing.register(app)
resuming.register(app)
models.register(app)
reporting.register(app)
interpreting.register(app)
intervening.register(app)
selecting.register(app)
saved.register(app)
converting.register(app)
exporting.register(app)
for _command in app.registered_commands:
    _command.callback = spoken(cast("Callable[..., None]", _command.callback))

#: exit codes: bad input, and stopped by Ctrl-C
BAD_INPUT, INTERRUPTED = 2, 130

# typer carries its own copy of click or uses the installed one, depending on its version.
_ClickException = cast("type[Exception]", typer.BadParameter.__mro__[2])


def main() -> None:
    """Run the command line; what the user did wrong is one line on standard error."""
    try:
        code = _app_for(sys.argv[1:])(sys.argv[1:], prog_name="pie-fast", standalone_mode=False)
    except (_ClickException, PieFastError, OSError) as error:
        print(f"pie-fast: error: {_one_line(error)}{_next_step(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("pie-fast: stopped", file=sys.stderr)
    sys.exit(code or 0)


def _app_for(arguments: list[str]) -> typer.Typer:
    """The command that is asked for, alone: to make the options of all takes as long as `inspect`.

    All of them where no one is named, for their help, and for `resume`, which runs others.
    """
    alone = copy(app)
    alone.registered_groups = []
    alone.registered_commands = [
        command for command in app.registered_commands if command.name in arguments[:1]
    ]
    return alone if alone.registered_commands and arguments[0] != "resume" else app


def _one_line(error: Exception) -> str:
    """The message of an error, without the line breaks that libraries put into theirs."""
    told = error.format_message() if hasattr(error, "format_message") else str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        told = f"{error.filename}: {error.strerror}"
    return " ".join(told.split()).removesuffix(".")


def _next_step(error: Exception) -> str:
    """What was probably meant, or where the options are listed, after an error of typing."""
    said = re.match(r"'(.*?)' is not one of (.*)", getattr(error, "message", ""), re.DOTALL)
    if said:
        return did_you_mean(said[1], re.findall(r"'(.*?)'", said[2]))
    if isinstance(error, BudgetError):
        return "; give a smaller --budget"
    command = getattr(error, "ctx", None)
    told = type(error) is typer.BadParameter or getattr(error, "possibilities", None)
    if command is None or told or command.parent is None:
        return ""
    return f"; {command.command_path} --help says what it takes"
