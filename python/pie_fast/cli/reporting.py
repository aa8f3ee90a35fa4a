"""Commands that show runs to people: `report`, `compare`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pie_fast.cli.common import ForceOption, JsonOption, OutOption, SeedOption, print_json


class Format(StrEnum):
    """Of a report."""

    html = "html"
    md = "md"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (report, compare):
        app.command(command.__name__)(command)


def report(
    run: Annotated[Path, typer.Argument(help="A run of `discover` or `demo --out`.")],
    out: OutOption,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="By default Markdown where --out ends in .md, else HTML."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a run as one page that explains itself, or as Markdown with figures."""
    from pie_fast.outputs import check_absent
    from pie_fast.report import write_report

    check_absent(out, force=force)
    chosen = form or (Format.md if out.suffix == ".md" else Format.html)
    written = write_report(run, out, format=chosen.value)
    if as_json:
        print_json({"report": str(written), "format": chosen.value})
    else:
        typer.echo(f"written to {written}")


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN1", help="A run, or a feature dump.")],
    second: Annotated[Path, typer.Argument(metavar="RUN2", help="Another one.")],
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Say what two runs both keep, how ranks moved, which is more faithful; of dumps, how far
    their entries are apart."""
    from pie_fast.cli.comparison_tables import print_comparison, print_dump_comparison

    if (first / "manifest.json").exists():
        from pie_fast.dump import open_dump
        from pie_fast.dump_comparing import compare_dumps

        apart = compare_dumps(open_dump(first), open_dump(second))
        if as_json:
            print_json(apart.to_dict())
        else:
            print_dump_comparison(apart, first, second)
        return
    from pie_fast.comparing import compare_runs
    from pie_fast.discovered_run import DiscoveredRun

    found = compare_runs(DiscoveredRun(first).result, DiscoveredRun(second).result, seed=seed)
    if as_json:
        print_json(found.to_dict())
    else:
        print_comparison(found, first, second)
