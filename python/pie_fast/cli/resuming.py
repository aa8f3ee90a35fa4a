"""The command that finishes what was stopped: `resume`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pie_fast.cli.common import JsonOption, print_json
from pie_fast.cli.speech import reporter
from pie_fast.run_files import PARTIAL, RESULT


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("resume")(resume)


def resume(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run that was stopped, as --out named it.")],
    as_json: JsonOption = False,
) -> None:
    """Finish a run that was stopped, with the options it was begun with."""
    out, begun = _stopped(run)
    for event in begun:
        reporter().note(f"{event['asked']['name']} goes on as it was begun")
        _ask_again(context, event, out, as_json=as_json)
    if not begun and as_json:
        print_json({"folder": str(run), "resumed": []})
    elif not begun:
        typer.echo(f"{run} is complete: there is nothing to resume")


def _stopped(run: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Where the run is to be, and the beginnings in it that nothing finished.

    Raises:
        PieFastError: There is no run, or no command began it.
    """
    from pie_fast.errors import PieFastError
    from pie_fast.journal import Journal, unfinished
    from pie_fast.outputs import partial_of, put_in_place

    out = run.resolve()
    if out.suffix == PARTIAL:
        out = out.with_suffix("")
    folder = partial_of(out) if partial_of(out).exists() else out
    if not folder.is_dir():
        raise PieFastError(f"{run} is not a run, and no run of that name was stopped")
    begun = unfinished(Journal(folder))
    if not begun and folder != out and Journal(folder).last("finished") is not None:
        put_in_place(out)
        folder = out
    if not begun and not (folder / RESULT).is_file():
        raise PieFastError(f"{folder} does not say what began it; use that command with --resume")
    for event in begun:
        if event["asked"] is None:
            raise PieFastError(
                f"{folder}: {event['name']} was begun from Python; call it with resume=True"
            )
    return out, begun


def _ask_again(context: typer.Context, event: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """Run the command of a beginning."""
    asked, name = event["asked"], event["asked"]["name"]
    said = reporter()
    flags = {"--json": as_json, "--force": asked["force"], "--quiet": not said.notes}
    where = [str(out)] if name == "interpret" else ["--out", str(out)]
    given = [name, *where, "--resume", *(flag for flag, on in flags.items() if on)]
    with _working_in(Path(asked["folder"])):
        code = context.find_root().command.main(
            args=given,
            prog_name="pie-fast",
            standalone_mode=False,
            default_map={name: asked["options"]},
        )
    if code:  # Ctrl-C
        raise typer.Exit(code)


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Where paths are as they were given; here where that folder is gone."""
    here = Path.cwd()
    if not folder.is_dir():
        reporter().note(f"{folder}, where the run was begun, is gone: paths are read from here")
        folder = here
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
