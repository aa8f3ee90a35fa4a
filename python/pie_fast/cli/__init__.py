"""The `pie-fast` command: parse, call, print. Heavy imports stand inside the commands."""

from __future__ import annotations

import sys
from typing import cast

import typer

from pie_fast.cli import (
    converting,
    discovering,
    interpreting,
    intervening,
    models,
    planning,
    saved,
    selecting,
    sharing,
)
from pie_fast.errors import PieFastError

# Help without rich: its markdown renderer alone takes longer to import than everything else here.
app = typer.Typer(
    name="pie-fast",
    help="Find the small circuit of CLT features behind a language model's behaviour.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
discovering.register(app)
planning.register(app)
sharing.register(app)
models.register(app)
interpreting.register(app)
intervening.register(app)
selecting.register(app)
saved.register(app)
converting.register(app)

#: exit codes: bad input, and stopped by Ctrl-C
BAD_INPUT, INTERRUPTED = 2, 130

# typer carries its own copy of click or uses the installed one, depending on its version.
_ClickException = cast("type[Exception]", typer.BadParameter.__mro__[2])


def main() -> None:
    """Run the command line; what the user did wrong is one line on standard error."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="pie-fast", standalone_mode=False)
    except (_ClickException, PieFastError, OSError) as error:
        print(f"pie-fast: error: {_one_line(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("pie-fast: stopped", file=sys.stderr)
    sys.exit(code or 0)


def _one_line(error: Exception) -> str:
    """The message of an error, without the line breaks that libraries put into theirs."""
    told = error.format_message() if hasattr(error, "format_message") else str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        told = f"{error.filename}: {error.strerror}"
    return " ".join(told.split())
