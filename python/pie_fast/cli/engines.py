"""Options of commands whose work an engine may spread over machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from pie_fast.engine import ENGINES, Engine, open_engine

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


@contextmanager
def chosen_engine(
    name: EngineName, address: str | None, workers: int | None, timeout: float | None = None
) -> Iterator[Engine]:
    """The engine that was asked for, closed at the end."""
    with open_engine(name.value, address=address, workers=workers, timeout=timeout) as engine:
        yield engine
