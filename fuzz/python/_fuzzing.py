"""What the Python targets share: atheris, and inputs of several files.

Input of several files: of each a byte and its content, joined by `BETWEEN`. The byte chooses a name
among those that a target lists.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import atheris

#: between two files of an input
BETWEEN = b"\n==\n"


@contextmanager
def instrumented():
    """Import what is to be fuzzed in here."""
    with atheris.instrument_imports(include=["pie_fast"], enable_loader_override=False):
        yield


def folder() -> Path:
    """A new folder in `TMPDIR`, which `fuzz/smoke` points to memory and clears."""
    return Path(tempfile.mkdtemp())


def spread(data: bytes, names: tuple[str, ...], into: Path) -> None:
    """The files of an input; those of the one before are gone."""
    for path in sorted(into.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    for part in data.split(BETWEEN)[: len(names)]:
        path = into / names[int.from_bytes(part[:1], "little") % len(names)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part[1:])


def fuzz(one: Callable[[bytes], None]) -> None:
    """Call `one` with inputs for as long as the options of libFuzzer say."""
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
