"""The command line as a person meets it: overview, completion, how much it says, colours."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pie_fast.cli import _app_for, app, sections
from pie_fast.cli.speech import reporter, spoken
from pie_fast.suggestions import did_you_mean
from running import World, run_cli


def started(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`pie-fast ARGS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pie_fast.cli", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def on_terminal(*command: object, **environment: str) -> str:
    """What a command writes where a terminal is both its output and its error."""
    ours, theirs = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    running = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            more = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        said += more
    os.close(ours)
    assert running.wait() == 0, said
    return said.decode()


def test_alone_it_says_in_a_screenful_what_it_can_do() -> None:
    said = run_cli()
    assert (said.code, said.stderr) == (0, "")
    lines = said.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    likely = [line.split()[1] for line in lines if line.startswith("  pie-fast ")]
    assert likely[:2] == ["demo", "discover"]
    listed = [name.strip(",") for line in lines for name in line.split()]
    assert all(command in listed for command in commands())


def commands() -> list[str]:
    grouped = [group.name for group in app.registered_groups]
    named = [one.name for one in app.registered_commands]
    found = [name for name in (*named, *grouped) if name is not None]
    assert found
    return found


def test_every_command_has_its_section() -> None:
    placed = [name for names in sections.SECTIONS.values() for name in names]
    assert len(placed) == len(set(placed))
    assert set(commands()) <= set(placed)
    said = run_cli("--help").stdout
    titles = [said.index(f"\n{title.capitalize()}:") for title in sections.SECTIONS if title]
    assert titles == sorted(titles)


def test_a_command_is_made_without_the_others() -> None:
    alone = _app_for(["inspect", "--help"])
    assert [command.name for command in alone.registered_commands] == ["inspect"]
    for others in ([], ["--help"], ["inspct"], ["convert", "a"], ["resume", "run"]):
        assert _app_for(others) is app
    assert len(app.registered_commands) > 1


def test_version() -> None:
    from pie_fast._native import __version__

    assert run_cli("--version").stdout == f"pie-fast {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    hidden = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    said = started("--show-completion", shell, **hidden)
    assert said.returncode == 0 and f"_PIE_FAST_COMPLETE=complete_{shell}" in said.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("pie-fast dis", {"discover"}),
        ("pie-fast discover --method fap", {"fap", "fap-ig", "fap-synergy"}),
        ("pie-fast discover -b doc", {"docstring", "docstring-wide"}),
        ("pie-fast top --rank-by ma", {"magnitude", "max"}),
    ],
)
def test_completion(typed: str, offered: set[str]) -> None:
    place = str(len(typed.split()) - 1)
    said = started(_PIE_FAST_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=place)
    assert set(said.stdout.split()) == offered


def test_what_was_meant(dump: Path) -> None:
    run_cli("discvoer").refused("no such command 'discvoer'; did you mean 'discover'?")
    run_cli("xyzzy").refused("no such command 'xyzzy'; pie-fast --help lists them")
    run_cli("demo", "-b", "docstrin").refused("did you mean 'docstring' or 'docstring-wide'?")
    run_cli("demo", "--method", "fap-synegy").refused("did you mean 'fap-synergy'")
    run_cli("top", dump, "--bugdet", 3).refused("--bugdet", "--budget")
    run_cli("select", dump).refused("'--budget'", "pie-fast select --help")
    run_cli("top", dump, "-k", 10**6).refused("exceeds", "give a smaller --budget")
    assert did_you_mean("q", ["discover"]) == did_you_mean("demo", []) == ""


def test_where_the_dump_is(dump: Path, discovered: tuple[Path, object], tmp_path: Path) -> None:
    run_cli("inspect", tmp_path / "no").refused("no: no such folder; pie-fast capture makes a dump")
    run = discovered[0]
    run_cli("top", run).refused(f"{run} is a run, not a dump; its dump is {run / 'dump'}")
    said = run_cli("select", dump, "-k", 2, "--synergy", "given", "--json")
    assert said.json and "--synergy is not read" in said.stderr


def test_quiet_says_nothing_but_the_result(world: World, tmp_path: Path) -> None:
    command = ("capture", *world.sources, "--json")
    noisy = run_cli(*command, "--out", tmp_path / "a")
    quiet = run_cli(*command, "--out", tmp_path / "b", "--quiet")
    assert noisy.fit_note and not quiet.fit_note and quiet.stderr == ""
    assert quiet.json["n_entries"] == noisy.json["n_entries"]


def test_verbose_says_what_stages_took(world: World, tmp_path: Path) -> None:
    said = run_cli("capture", *world.sources, "--out", tmp_path / "a", "-v", "--json")
    (load,) = [line for line in said.stderr.splitlines() if line.startswith("pie-fast: load: ")]
    assert load.endswith(" s")
    assert "pie-fast: capture: " in said.stderr and " backward passes" in said.stderr
    assert set(said.json["timings"]) == {"load", "capture"}
    run_cli("capture", *world.sources, "-o", tmp_path / "b", "-q", "-v").refused("exclude")


@pytest.mark.parametrize("verbose", [False, True])
def test_warnings_of_libraries_are_shown_when_asked_for(verbose: bool) -> None:
    def command() -> None:
        for name in ("torch.nn", "mine"):
            warnings.warn_explicit("old", DeprecationWarning, "somewhere.py", 1, module=name)
        reporter().note("seen")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spoken(command)(quiet=False, verbose=verbose)
    assert len(caught) == 1 + verbose
    assert reporter().timings == {}, "of no command"


@pytest.mark.parametrize("command", commands())
def test_all_commands_have_the_same_options(command: str) -> None:
    inner = ("clt",) if command == "convert" else ()
    said = run_cli(command, *inner, "--help").stdout
    assert all(option in said for option in ("--quiet", "--verbose", "--json"))


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])[;m]")

STAGE = """
import time
from pie_fast.progress import Reporter
with Reporter(visible=True).stage("work") as advance:
    for done in range(1, 9):
        advance(done, 10)
        time.sleep(.06)
"""


def test_a_long_stage_has_bar_rate_and_time_left() -> None:
    said = on_terminal("-c", STAGE)
    assert "work" in said and "━" in said and "8/10" in said
    assert re.search(r"\d/s", said) and said.count("0:00:0") > 1, "rate; time spent and left"
    assert COLOUR.search(said)
    assert not COLOUR.search(on_terminal("-c", STAGE, NO_COLOR="1"))


def test_nothing_but_text_where_nobody_watches(dump: Path) -> None:
    assert "\x1b" not in started("top", dump, "-k", 1).stdout
    assert "\x1b[" in on_terminal("-m", "pie_fast.cli", "top", dump, "-k", 1)
