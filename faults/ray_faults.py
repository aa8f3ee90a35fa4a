"""What dies on a Ray cluster at random moments of `discover`: a worker, the driver, the head."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

import psutil
from children import Child, in_child
from kills import Job, compared, resumed, undisturbed
from ray_cluster import N_WORKERS, RayCluster
from tally import WRONG, Fault
from world import World

#: seconds after which a worker counts as hanging; loading a model takes a few of them
HANGS = 20

#: seconds for a command that was struck to end by itself
PATIENCE = 240


def worker_kills(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Kill a worker: another takes its place, and the run goes on."""
    yield from _workers_struck(world, n, rng, signal.SIGKILL)


def worker_stops(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Let a worker hang: it is replaced when its time is up."""
    yield from _workers_struck(world, n, rng, signal.SIGSTOP, "--timeout", HANGS)


def driver_kills_on_ray(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Kill the process that asks: `resume` on the same cluster goes on."""
    with _spread(world, "driver") as (_, job, place):
        for number in range(n):
            moment = rng.uniform(0, job.seconds)
            child = in_child(job.command(place / str(number)))
            time.sleep(moment)
            child.kill()
            code, _ = child.wait()
            how = f"after {moment:.2f} of {job.seconds:.2f} s, ended with {code}"
            yield Fault("SIGKILL of a Ray driver", how, *resumed(job, place / str(number)))


def head_kills(world: World, n: int, rng: Random) -> Iterator[Fault]:
    """Kill the head: a clear error; `resume` on a cluster that was started again goes on."""
    with _spread(world, "head") as (cluster, job, place):
        for number in range(n):
            out, moment = place / str(number), rng.uniform(0, job.seconds)
            child = in_child(job.command(out))
            time.sleep(moment)
            cluster.head().kill()
            code, said = child.wait(PATIENCE)
            cluster.stop()
            cluster.start()
            how = f"after {moment:.2f} of {job.seconds:.2f} s, ended with {code}"
            # Ray calls this machine by another name than 127.0.0.1.
            port = cluster.address.rpartition(":")[2]
            unclear = code != 0 and (code != 2 or f":{port}" not in said)
            verdict = resumed(job, out)
            if unclear:
                verdict = (WRONG, f"no clear error: {said[-600:]}")
            yield Fault("SIGKILL of Ray's head", how, *verdict)


def _workers_struck(
    world: World, n: int, rng: Random, what: signal.Signals, *options: object
) -> Iterator[Fault]:
    kind = f"{what.name} of a Ray worker"
    with _spread(world, what.name, *options) as (cluster, job, place):
        for number in range(n):
            out, moment, struck = place / str(number), rng.uniform(0, job.seconds), False
            while not struck:
                child = in_child(job.command(out))
                struck = _strike(cluster, child, moment, rng, what)
                code, said = child.wait(PATIENCE)
                if not struck:  # it had ended by then
                    compared(job, out)
                    moment *= rng.random()
            how = f"after {moment:.2f} of {job.seconds:.2f} s"
            verdict = (WRONG, f"ended with {code}: {said[-600:]}")
            yield Fault(kind, how, *(verdict if code else compared(job, out)))


def _strike(
    cluster: RayCluster, child: Child, moment: float, rng: Random, what: signal.Signals
) -> bool:
    """Send a signal to a worker, as soon as there is one after that moment; whether there was."""
    which = rng.random()
    time.sleep(moment)
    while child.runs():
        if workers := cluster.workers():
            with suppress(psutil.NoSuchProcess):
                workers[int(which * len(workers))].send_signal(what)
                return True
        time.sleep(0.005)
    return False


@contextmanager
def _spread(world: World, name: str, *options: object) -> Iterator[tuple[RayCluster, Job, Path]]:
    """A cluster, what runs there with what it gives undisturbed, and a folder for its runs."""
    place = world.folder.with_name(f"ray-{name}")
    place.mkdir(exist_ok=True)
    cluster = RayCluster()
    where = ("--engine", "ray", "--address", cluster.address, "--workers", N_WORKERS)
    command = partial(_command, world, (*where, "--batch-size", 2, *options))
    try:
        cluster.start()
        undisturbed(f"discover on Ray ({name})", command, place / "first")  # the first is slower
        yield cluster, undisturbed(f"discover on Ray ({name})", command, place / "whole"), place
    finally:
        cluster.close()


def _command(world: World, options: tuple[object, ...], out: Path) -> tuple[object, ...]:
    return (*world.discover(out), *options)
