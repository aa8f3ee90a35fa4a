"""Where work runs: in this process, or on the workers of a Ray cluster.

An engine lends workers, each of which holds something for its life (a model, an open dump), and
maps a function over items. Results come in the order of the items, whatever order they finish in,
so what is folded from them has the same bytes for any number of workers.

    with open_engine("ray", workers=2) as engine, engine.workers(make_model) as workers:
        for result in workers.map(measure, batches):
            ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pie_fast.engine.base import Engine, Workers
from pie_fast.engine.local import LocalEngine
from pie_fast.engine_names import ENGINES
from pie_fast.errors import PieFastError

if TYPE_CHECKING:
    from pie_fast.engine.on_ray import RayEngine

__all__ = ["ENGINES", "Engine", "LocalEngine", "Workers", "open_engine"]


def open_engine(
    name: str = "local",
    *,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    timeout: float | None = None,
) -> LocalEngine | RayEngine:
    """An engine, to be closed (it is a context manager).

    Args:
        name: `local` or `ray`.
        address: Of a Ray cluster, `auto` for the one this machine belongs to; None starts one here
            that ends with the engine.
        workers: How many; as many as the cluster has room for when None.
        cpus_per_worker, gpus_per_worker: What each worker takes of its machine.
        timeout: Seconds after which an item counts as hanging; None waits for ever.

    Raises:
        PieFastError: An unknown name, a number out of range, an option that `local` does not have,
            Ray is not installed or not to be reached.
    """
    if name == "ray":
        from pie_fast.engine.on_ray import RayEngine

        return RayEngine(
            address,
            workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            timeout=timeout,
        )
    if name != "local":
        raise PieFastError(f"engine is {name!r}, must be one of {', '.join(ENGINES)}")
    if address is not None:
        raise PieFastError(f"address is {address!r}, the local engine has none: use engine ray")
    if workers not in (None, 1):
        raise PieFastError(f"workers is {workers}, the local engine has 1: use engine ray")
    return LocalEngine()
