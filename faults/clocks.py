"""A clock that jumps back and forth while a command runs, and files that are of the future."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from children import in_child
from kills import result_of, resumed, undisturbed
from tally import SURVIVED, WRONG, Fault
from world import World

#: seconds: a year
FAR = 3.2e7


def jumping(seed: int) -> None:
    """Let every clock that this process asks from now on jump by up to a year, either way."""
    rng = Random(seed)

    def off(clock: Callable[[], float]) -> Callable[[], float]:
        return lambda: clock() + rng.uniform(-FAR, FAR)

    for name in ("time", "perf_counter"):
        setattr(time, name, off(getattr(time, name)))


def clock_jumps(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Run `capture` under a clock that jumps; stop it, age its files, go on."""
    place = world.folder.with_name("clock")
    place.mkdir(exist_ok=True)
    job = undisturbed("capture", world.capture, place / "whole")
    for number in range(n):
        out, seed = place / str(number), rng.randrange(1 << 30)
        child = in_child(job.command(out), partial(jumping, seed))
        if number % 2:
            time.sleep(rng.uniform(0, job.seconds))
            child.kill()
            child.wait()
            date_files(out, rng)
            yield Fault("clock jumps", f"seed {seed}, killed, files dated", *resumed(job, out))
            continue
        code, said = child.wait()
        same = not code and result_of(out) == job.expected
        told = "" if same else f"ended with {code}: {said[-300:]}"
        yield Fault("clock jumps", f"seed {seed}", SURVIVED if same else WRONG, told)


def date_files(folder: Path, rng: Random) -> None:
    """Give files any date between 1970 and 2100."""
    for file in folder.rglob("*"):
        stamp = rng.uniform(0, 4.1e9)
        os.utime(file, (stamp, stamp))
