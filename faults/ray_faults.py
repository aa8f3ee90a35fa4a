"""What dies on a Ray cluster at random moments of `discover`: a worker, the driver, the head."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
from children import Child, in_child
from kills import compared, ended, killed, resumed, undisturbed
from ray_cluster import N_WORKERS, RayCluster
from tally import WRONG, Fault
from world import World

#: seconds after which a worker counts as hanging: many times what loading the model takes
HANGS = 60

#: a worker hangs in one round of so many: it takes so long
EVERY = 4

#: seconds for a command that was struck to end by itself
PATIENCE = 600


def worker_faults(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Kill `n` workers, and let one hang now and then."""
    with _struck(world, "workers", rng) as struck:
        for number in range(n):
            yield struck.worker(number, signal.SIGKILL)
            if number % EVERY == 0:
                yield struck.worker(number, signal.SIGSTOP, "--timeout", HANGS)


def driver_faults(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Kill `n` drivers."""
    with _struck(world, "drivers", rng) as struck:
        for number in range(n):
            yield struck.driver(number)


def head_faults(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Kill `n` heads."""
    with _struck(world, "heads", rng) as struck:
        for number in range(n):
            yield struck.head(number)


@contextmanager
def _struck(world: World, name: str, rng: Random) -> Iterator[_Struck]:
    """Runs on a cluster that stands meanwhile."""
    cluster = RayCluster()
    try:
        cluster.start()
        yield _Struck(world, name, cluster, rng)
    finally:
        cluster.close()


@dataclass
class _Struck:
    """Runs of `discover` on a cluster, each struck once."""

    world: World
    name: str
    cluster: RayCluster
    rng: Random

    def __post_init__(self) -> None:
        self._place = self.world.folder.with_name(self.name)
        self._place.mkdir()
        self._job = undisturbed("discover on Ray", self._command, self._place / "whole")

    def worker(self, number: int, what: signal.Signals, *options: object) -> Fault:
        """Kill a worker, or let it hang: another takes its place, and the run goes on."""
        out, moment, struck = self._place / str(number), self._moment(), False
        code, said = 0, ""
        while not struck:
            child = in_child((*self._job.command(out), *options))
            struck = self._strike(child, moment, what)
            code, said = child.wait(PATIENCE)
            if not struck:  # it had ended by then
                ended(self._job, out, code, said)
                moment *= self.rng.random()
        verdict = (WRONG, f"ended with {code}: {said[-600:]}") if code else compared(self._job, out)
        return Fault(f"{what.name} of a Ray worker", self._told(moment, code), *verdict)

    def driver(self, number: int) -> Fault:
        """Kill the process that asks: `resume` on the same cluster goes on."""
        out = self._place / str(number)
        how = killed(self._job, out, self.rng)
        return Fault("SIGKILL of the driver on Ray", how, *resumed(self._job, out))

    def head(self, number: int) -> Fault:
        """Kill the head: a clear error; `resume` on a cluster that was started again goes on."""
        out, moment = self._place / str(number), self._moment()
        while True:
            child = in_child(self._job.command(out))
            time.sleep(moment)
            if child.runs():
                break
            ended(self._job, out, *child.wait())
            moment *= self.rng.random()
        self.cluster.head().kill()
        begin = time.monotonic()
        code, said = child.wait(PATIENCE)
        seconds = time.monotonic() - begin
        self.cluster.stop()
        self.cluster.start()
        verdict = resumed(self._job, out)
        # Ray calls this machine by another name than 127.0.0.1.
        port = self.cluster.address.rpartition(":")[2]
        if code != 0 and (code != 2 or f":{port}" not in said):
            verdict = (WRONG, f"no clear error: {said[-600:]}")
        how = f"{self._told(moment, code)} {seconds:.0f} s later"
        return Fault("SIGKILL of Ray's head", how, *verdict)

    def _command(self, out: Path) -> tuple[object, ...]:
        where = ("--engine", "ray", "--address", self.cluster.address, "--workers", N_WORKERS)
        return (*self.world.discover(out), *where, "--batch-size", 2)

    def _moment(self) -> float:
        return self.rng.uniform(0, self._job.seconds)

    def _told(self, moment: float, code: int) -> str:
        return f"after {moment:.2f} of {self._job.seconds:.2f} s, ended with {code}"

    def _strike(self, child: Child, moment: float, what: signal.Signals) -> bool:
        """Send a signal to a worker, as soon as one is there after that moment; whether one was."""
        which = self.rng.random()
        time.sleep(moment)
        while child.runs():
            if workers := self.cluster.workers():
                with suppress(psutil.NoSuchProcess):
                    workers[int(which * len(workers))].send_signal(what)
                    return True
            time.sleep(0.005)
        return False
