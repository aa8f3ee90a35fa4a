"""A crew: workers that each hold the same model, for work that is cut into items.

A job is a function of what a worker holds, of what all items share, and of an item. Its result does
not depend on which worker ran it, and results come in the order of the items, so what is made of
them has the same bytes for any number of workers of one kind of machine. Model calls are charged to
the model of the process that asks, wherever they ran.

Without an engine the crew is this process with its own model: the same code, one item after
another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from pie_fast.cost import Cost
from pie_fast.engine import Engine, LocalEngine, Workers
from pie_fast.errors import PieFastError
from pie_fast.model import Replacer
from pie_fast.model_source import ModelSource

C = TypeVar("C")
I = TypeVar("I")  # noqa: E741  an item
R = TypeVar("R")


class Held:
    """What a worker holds for its life: the model, and what it prepared for items to come.

    Attributes:
        model: The replacement model.
    """

    def __init__(self, model: Replacer) -> None:
        self.model = model
        self._kept: dict[Hashable, tuple[Any, Cost]] = {}

    def keep(self, key: Hashable, make: Callable[[], R]) -> tuple[R, Cost]:
        """What `make` gave the first time, and its model calls, which are charged to nobody yet.

        Which worker prepares what is by chance: whoever asks charges it once, whatever happened.
        """
        if key not in self._kept:
            before = self.model.spent
            made = make()
            self._kept[key] = made, self.model.spent - before
            self.model.spent = before
        found: tuple[R, Cost] = self._kept[key]
        return found


Job = Callable[[Held, C, I], R]


class Crew:
    """Workers that hold one model.

    Attributes:
        model: The same model in this process; what jobs cost is added to its `spent`.
        n_workers: How many.
        here: The one worker is this process.
    """

    def __init__(
        self, model: Replacer, workers: Workers[Held], n_workers: int, *, here: bool
    ) -> None:
        self.model, self.n_workers, self.here = model, n_workers, here
        self._workers = workers

    def map(self, job: Job[C, I, R], shared: C, items: Iterable[I]) -> Generator[R, None, None]:
        """What a job gives for each item, in their order.

        Args:
            job: A function of a module: workers find it by its name.
            shared: What it is given beside each item; plain values, arrays, tensors on the CPU.
            items: Likewise; they are looked at as workers become free.

        Yields:
            A result an item.

        Raises:
            BaseException: What the job raised.
            PieFastError: A worker could not be kept alive.
        """
        for found, cost in self._workers.map(partial(_charged, job, shared), items):
            self.model.spent += cost
            yield found


@contextmanager
def crew_of(model: Replacer, engine: Engine | None = None) -> Iterator[Crew]:
    """A crew for a model, while the context lasts.

    Args:
        model: The model of this process.
        engine: Where workers run; None: in this process.

    Raises:
        PieFastError: Workers elsewhere cannot load the model: it was made of objects.
    """
    engine = engine or LocalEngine()
    here = isinstance(engine, LocalEngine)
    make = partial(Held, model)
    if not here:
        make = partial(_load, _source_of(model), torch.get_num_threads())
    with engine.workers(make) as workers:
        yield Crew(model, workers, engine.n_workers, here=here)


def _source_of(model: Replacer) -> ModelSource:
    source: ModelSource | None = getattr(model, "source", None)
    if source is None:
        raise PieFastError(
            f"workers cannot load {model.host.name}: it was made of objects; load_model must be "
            "given folders or hub ids"
        )
    return source


def _load(source: ModelSource, threads: int) -> Held:
    torch.set_num_threads(threads)  # how a sum is cut into threads is seen in its last bits
    return Held(source.load())


def _charged(job: Job[C, I, R], shared: C, held: Held, item: I) -> tuple[R, Cost]:
    """A result and the model calls it took, which the asking process charges."""
    before = held.model.spent
    found = job(held, shared, item)
    cost = held.model.spent - before
    held.model.spent = before
    return found, cost
