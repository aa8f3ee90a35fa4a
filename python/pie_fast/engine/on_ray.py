"""Workers as actors of a Ray cluster.

Ray moves functions, items and results; who works on what, in which order results come, and what
happens to a worker that died or hangs is decided here, so that it can be tested without chance.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic

from pie_fast.engine.base import Item, Result, T, Workers
from pie_fast.engine.head import Head
from pie_fast.errors import PieFastError, WorkerError

#: workers that an item may cost before it is given up
TRIES = 4

#: seconds between two looks at the clock while nothing finishes
PATIENCE = 0.5


class RayEngine:
    """Workers on a Ray cluster; arguments as `pie_fast.engine.open_engine`.

    A worker that dies, or is killed because its item took longer than `timeout`, is started again
    and its item is run again; where its host was lost and no other has room, there is one less.

    Raises:
        PieFastError: Ray is not installed, the cluster is not to be reached or has no room for a
            worker, a number is out of range.
    """

    def __init__(
        self,
        address: str | None = None,
        n_workers: int | None = None,
        *,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        timeout: float | None = None,
    ) -> None:
        if n_workers is not None and n_workers < 1:
            raise PieFastError(f"workers is {n_workers}, must be at least 1")
        for name, value in (("cpus_per_worker", cpus_per_worker), ("timeout", timeout)):
            if value is not None and not value > 0:
                raise PieFastError(f"{name} is {value}, must be above 0")
        if gpus_per_worker < 0:
            raise PieFastError(f"gpus_per_worker is {gpus_per_worker}, must be at least 0")
        self._ray = _ray()
        self._resources = {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker}
        self._timeout = timeout
        self._started = _connect(self._ray, address, n_workers, cpus_per_worker, gpus_per_worker)
        self._head = Head(self._ray.get_runtime_context().gcs_address)
        self.n_workers = n_workers or self._room()

    def _room(self) -> int:
        """How many workers the cluster has room for."""
        there = self._ray.cluster_resources()
        kinds = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        room = min(int(there.get(kind, 0) / need) for kind, need in kinds.items() if need)
        if room < 1:
            raise PieFastError(f"the cluster has {there}, a worker needs {kinds}")
        return room

    @contextmanager
    def workers(self, make: Callable[[], T]) -> Iterator[Workers[T]]:
        """See `Engine`."""
        actor = self._ray.remote(**self._resources)(_Held)
        crew: _Crew[T] = _Crew(
            self._ray,
            self._head,
            lambda: actor.remote(make),
            self._room,
            self.n_workers,
            self._timeout,
        )
        try:
            yield crew
        finally:
            crew.dismiss()

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._started:
            self._ray.shutdown()

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _ray() -> Any:
    # Before the import: Ray reads it once.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise PieFastError("engine ray needs Ray: pip install 'pie-fast[ray]'") from error
    return ray


def _connect(
    ray: Any, address: str | None, n_workers: int | None, cpus: float, gpus: float
) -> bool:
    """Join a cluster, or start one; whether there was no connection before."""
    if ray.is_initialized():
        return False
    how: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    if address is None and n_workers is not None:
        how["num_cpus"] = max(1, round(n_workers * cpus))
        if gpus:
            how["num_gpus"] = max(1, round(n_workers * gpus))
    if address is not None and address.rpartition(":")[2].isdecimal() and "//" not in address:
        Head(address).check()  # Ray looks for one that is not there for minutes
    try:
        ray.init(address=address or "local", logging_level="ERROR", **how)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PieFastError(
            f"address {address!r}: no Ray cluster is to be reached: {error}"
        ) from error
    return True


class _Held:
    """What runs in a worker: an object, made when it is first needed."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._held: list[Any] = []

    def call(self, function: Callable[[Any, Any], Any], item: Any) -> tuple[bool, Any]:
        """Whether it went well, and the result or the error: Ray would change its type."""
        try:
            if not self._held:
                self._held.append(self._make())
            return True, function(self._held[0], item)
        except Exception as error:
            return False, error


@dataclass
class _Job:
    """An item on its way."""

    index: int
    item: Any
    tries: int = 0
    begun: float = 0.0
    worker: Any = None


@dataclass
class _Crew(Generic[T]):
    """Actors, and what each is at."""

    ray: Any
    head: Head
    hire: Callable[[], Any]
    room: Callable[[], int]
    size: int
    timeout: float | None
    _idle: deque[Any] = field(default_factory=deque)
    _all: list[Any] = field(default_factory=list)

    def map(
        self,
        function: Callable[[T, Item], Result],
        items: Iterable[Item],
        *,
        ahead: int | None = None,
    ) -> Iterator[Result]:
        """See `Workers`."""
        limit = max(1, 2 * self.size if ahead is None else ahead)
        source = (_Job(index, item) for index, item in enumerate(items))
        again: deque[_Job] = deque()
        running: dict[Any, _Job] = {}
        finished: dict[int, tuple[bool, Any]] = {}
        next_out, ended = 0, False
        self.head.check()
        sent = self.ray.put(function)  # once a machine, with all that it carries
        try:
            while True:
                while next_out in finished:
                    went_well, found = finished.pop(next_out)
                    if not went_well:
                        raise found
                    yield found
                    next_out += 1
                while again or (not ended and len(running) + len(finished) < limit):
                    if len(running) == self.size:
                        break
                    job = again.popleft() if again else next(source, None)
                    if job is None:
                        ended = True
                        break
                    running[self._begin(sent, job)] = job
                if not running:
                    if ended and not finished:
                        return
                    continue
                self._collect(running, again, finished)
        finally:
            # Of a map that was left early: their workers are at something nobody waits for.
            for job in running.values():
                self._dismiss(job.worker)

    def _begin(self, function: Any, job: _Job) -> Any:
        if self._idle:
            job.worker = self._idle.popleft()
        else:
            self.head.check()
            job.worker = self.hire()
            self._all.append(job.worker)
        job.begun = time.monotonic()
        return job.worker.call.remote(function, job.item)

    def _collect(
        self,
        running: dict[Any, _Job],
        again: deque[_Job],
        finished: dict[int, tuple[bool, Any]],
    ) -> None:
        """Wait for something to finish; jobs of dead or hanging workers come again."""
        ready, _ = self.ray.wait(list(running), num_returns=1, timeout=PATIENCE)
        if not ready:
            self.head.glance()
        for ref in ready:
            job = running.pop(ref)
            try:
                outcome = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                self._lose(job, again, f"died: {_told(error)}")
                continue
            self._idle.append(job.worker)
            # An error waits for its turn: which of several is raised must not depend on timing.
            finished[job.index] = outcome
        for ref, job in list(running.items()):
            if self.timeout is not None and time.monotonic() - job.begun > self.timeout:
                del running[ref]
                self._lose(job, again, f"gave no answer for {self.timeout} s")

    def _lose(self, job: _Job, again: deque[_Job], why: str) -> None:
        self.head.check()
        self._dismiss(job.worker)
        # One that is hired without room for it would be waited for without end.
        self.size = min(self.size, self.room())
        job.tries += 1
        if job.tries == TRIES:
            raise WorkerError(f"item {job.index}: {TRIES} workers were lost on it, the last {why}")
        again.append(job)

    def _dismiss(self, worker: Any) -> None:
        if worker in self._all:
            self._all.remove(worker)
        with suppress(self.ray.exceptions.RayError, ValueError, WorkerError):
            self.head.check()
            self.ray.kill(worker)

    def dismiss(self) -> None:
        """End all workers."""
        self._idle.clear()
        for worker in list(self._all):
            self._dismiss(worker)


def _told(error: Exception) -> str:
    """How a worker died, and of what where Ray knows: its first line, and the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(dict.fromkeys([line.split(":")[0] for line in lines[:1]] + lines[-1:]))
