"""Options of commands whose work an engine may spread over machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pie_fast.engine_names import ENGINES
from pie_fast.errors import PieFastError

if TYPE_CHECKING:
    from pie_fast.engine import Engine

# Made of the names themselves, so that none is missing.
EngineName = StrEnum("EngineName", {name: name for name in ENGINES})  # type: ignore[misc]

EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="Where the work runs: here, or on a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", help="Of the Ray cluster: auto or HOST:PORT. By default one is started here."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", help="Of the Ray cluster. By default as many as it has room for."),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", help="Seconds after which a worker counts as hanging (Ray)."),
]
ScratchOption = Annotated[
    str | None,
    typer.Option(
        "--scratch",
        help="Folder that all machines share, or a URL, for what workers hand on (Ray).",
    ),
]


@contextmanager
def scoring_engine(
    name: EngineName, address: str | None, workers: int | None, scratch: str | None
) -> Iterator[Engine | None]:
    """The engine that scores a dump; None where this process scores it on all its cores."""
    from pie_fast.engine import open_engine

    if name.value == "local":
        open_engine("local", address=address, workers=workers)  # refuses what it does not have
        if scratch is not None:
            raise PieFastError(f"scratch is {scratch!r}, the local engine has none: --engine ray")
        yield None
        return
    with chosen_engine(name, address, workers) as engine:
        yield engine


@contextmanager
def chosen_engine(
    name: EngineName, address: str | None, workers: int | None, timeout: float | None = None
) -> Iterator[Engine]:
    """The engine that was asked for, closed at the end."""
    from pie_fast.engine import open_engine

    with open_engine(name.value, address=address, workers=workers, timeout=timeout) as engine:
        yield engine
