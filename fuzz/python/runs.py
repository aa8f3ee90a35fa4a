"""Folders of runs: a `PieFastError`, or a result that a report can be made of."""

from __future__ import annotations

from _fuzzing import folder, fuzz, instrumented, spread

with instrumented():
    from pie_fast.discovered_run import DiscoveredRun
    from pie_fast.errors import PieFastError
    from pie_fast.report import write_report
    from pie_fast.report.run import read_run
    from pie_fast.selectors import read_circuit

FOLDER = folder() / "run"
NAMES = ("result.json", "interpretation.json")


def one(data: bytes) -> None:
    FOLDER.mkdir(exist_ok=True)
    spread(data, NAMES, FOLDER)
    run = DiscoveredRun(FOLDER)
    for read in (
        lambda: run.told,
        lambda: run.settings,
        lambda: run.features,
        lambda: read_circuit(FOLDER / "result.json"),
        lambda: read_run(FOLDER),
        lambda: write_report(FOLDER, FOLDER.with_name("report.html")),
    ):
        try:
            read()
        except FileNotFoundError:
            assert not (FOLDER / "result.json").exists()
        except PieFastError as error:
            assert str(FOLDER) in str(error), error


fuzz(one)
