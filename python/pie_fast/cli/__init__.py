"""The `pie-fast` command: parse, call, print. Heavy imports stand inside the commands."""

from __future__ import annotations

import sys

import typer

from pie_fast.cli import models, saved, selecting
from pie_fast.errors import PieFastError

app = typer.Typer(
    name="pie-fast",
    help="Find the small circuit of CLT features behind a language model's behaviour.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models.register(app)
selecting.register(app)
saved.register(app)

#: exit codes: bad input, and stopped by Ctrl-C
BAD_INPUT, INTERRUPTED = 2, 130


def main() -> None:
    """Run the command line; what the user did wrong is one line on standard error."""
    try:
        app(standalone_mode=True)
    except (PieFastError, OSError) as error:
        print(f"pie-fast: error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("pie-fast: stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
