"""SIGKILL of a command at random moments; what is there then, and what `resume` makes of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from children import in_child
from tally import SURVIVED, WRONG, Fault
from world import World

from pie_fast.dump import open_dump
from pie_fast.errors import PieFastError
from pie_fast.journal import Journal
from pie_fast.outputs import partial_of
from pie_fast.run_files import JOURNAL

#: what a result says of who asked for it, not of what was found
OF_THE_RUN = ("command", "checksum")

Command = Callable[[Path], tuple[object, ...]]


@dataclass(frozen=True)
class Job:
    """A command whose result is known.

    Attributes:
        name: Its name.
        command: For an output folder.
        expected: What the folder holds when it ends.
        seconds: How long it takes.
    """

    name: str
    command: Command
    expected: dict[str, Any]
    seconds: float

    def go_on(self, out: Path) -> tuple[object, ...]:
        """What finishes a run that was stopped: `resume`, where its journal says what began it.

        Raises:
            PieFastError: The journal is broken.
        """
        if any(Journal(folder).events() for folder in (out, partial_of(out))):
            return ("resume", out)
        return (*self.command(out), "--resume")


def undisturbed(name: str, command: Command, out: Path) -> Job:
    """Run a command once, without faults."""
    begin = time.monotonic()
    code, said = in_child(command(out)).wait()
    if code:
        raise RuntimeError(f"{name} ended with {code}: {said}")
    return Job(name, command, result_of(out), time.monotonic() - begin)


def driver_kills(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Kill `capture` and `discover` at `n` random moments each, and go on."""
    place = world.folder.with_name("killed")
    place.mkdir(exist_ok=True)
    for name, command in (("capture", world.capture), ("discover", world.discover)):
        job = undisturbed(name, command, place / f"{name}-whole")
        for number in range(n):
            out = place / f"{name}-{number}"
            yield Fault(f"SIGKILL of {name}", killed(job, out, rng), *resumed(job, out))


def killed(job: Job, out: Path, rng: Random) -> str:
    """Kill a command at a random moment; how. A sooner moment where it had ended by then."""
    moment = rng.uniform(0, job.seconds)
    while True:
        child = in_child(job.command(out))
        time.sleep(moment)
        child.kill()
        code, said = child.wait()
        if code < 0:
            return f"after {moment:.2f} of {job.seconds:.2f} s, ended with {code}"
        ended(job, out, code, said)
        moment *= rng.random()


def ended(job: Job, out: Path, code: int, said: str) -> None:
    """Remove a run that ended before it was struck.

    Raises:
        RuntimeError: It failed, or its bytes are others.
    """
    verdict = (WRONG, said[-600:]) if code else compared(job, out)
    if verdict[0] == WRONG:
        raise RuntimeError(f"{job.name} ended with {code} before it was struck: {verdict[1]}")


def resumed(job: Job, out: Path) -> tuple[str, str]:
    """What is there must be whole or refused; going on must give the same bytes."""
    half = half_written(out)
    if half:
        return WRONG, half
    if not finished(out):
        code, said = in_child(job.go_on(out)).wait()
        if code:
            return WRONG, f"going on ended with {code}: {said[-300:]}"
    return compared(job, out)


def compared(job: Job, out: Path) -> tuple[str, str]:
    """Whether a run that ended has the bytes of the undisturbed one; it is removed."""
    found = result_of(out)
    left = partial_of(out).exists()
    for folder in (out, partial_of(out)):
        shutil.rmtree(folder, ignore_errors=True)
    if left:
        return WRONG, "the unfinished run is still there"
    names = sorted({*found, *job.expected})
    different = [name for name in names if found.get(name) != job.expected.get(name)]
    return (WRONG, f"differs: {', '.join(different)}") if different else (SURVIVED, "")


def half_written(out: Path) -> str:
    """What is wrong with a dump that was stopped; empty where nothing is."""
    for dump in (out, partial_of(out) / "dump", out / "dump"):
        if (dump / "manifest.json").exists():
            try:
                open_dump(dump).verify()
            except (PieFastError, OSError) as error:
                return f"what is there is not whole: {error}"
    return ""


def finished(out: Path) -> bool:
    """Whether the command had ended before it was killed."""
    if (out / "result.json").exists():
        return True
    return (out / "manifest.json").exists() and open_dump(out).complete


def result_of(out: Path) -> dict[str, Any]:
    """Bytes by name, the journal's aside; of a result what it found, by field."""
    files: dict[str, Any] = {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.name != JOURNAL
    }
    if "result.json" in files:
        told = json.loads(files.pop("result.json"))
        files |= {key: told[key] for key in told if key not in OF_THE_RUN}
    return files
