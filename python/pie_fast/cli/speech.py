"""How much a command says: `--quiet` and `--verbose`, for all that run long, in one place.

`spoken` gives a command the two options; what runs inside takes `reporter()`, which obeys them.
Results go to standard output and are never hidden: `--quiet` is about notes and bars.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Annotated, Any

import typer

from pie_fast.progress import Reporter

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress bars.")]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Also time and model calls by stage, and libraries' warnings."
    ),
]

#: whose warnings only `--verbose` shows: they are not the user's to mend
LIBRARIES = r"(torch|transformers|transformer_lens|huggingface_hub|safetensors)\b"

_current: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


def reporter() -> Reporter:
    """That of the command that runs; one that is silent where none does."""
    return _current.get() or Reporter()


def watched() -> bool:
    """Whether somebody sees the progress."""
    return sys.stderr.isatty()


def spoken(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--quiet` and `--verbose`."""

    @wraps(command)
    def run(*args: Any, quiet: bool, verbose: bool, **kwargs: Any) -> None:
        if quiet and verbose:
            raise typer.BadParameter("--quiet and --verbose exclude each other; give one")
        with _speaking(quiet=quiet, verbose=verbose):
            command(*args, **kwargs)

    added = {"quiet": QuietOption, "verbose": VerboseOption}
    signature = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in added.items()
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *more]
    )
    run.__annotations__ = {**command.__annotations__, **added}
    return run


@contextmanager
def _speaking(*, quiet: bool, verbose: bool) -> Iterator[None]:
    spoken_by = Reporter(visible=watched() and not quiet, notes=not quiet)
    token = _current.set(spoken_by)
    try:
        with warnings.catch_warnings():
            if not verbose:
                warnings.filterwarnings("ignore", module=LIBRARIES)
                for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
                    os.environ.setdefault(name, "error")  # read when they are imported
            yield
    finally:
        _current.reset(token)
        if verbose:
            for line in spoken_by.told():
                print(f"pie-fast: {line}", file=sys.stderr)
