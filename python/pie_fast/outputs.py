"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pie_fast.errors import OutputExistsError


@contextmanager
def new_folder(path: Path, *, force: bool = False, resume: bool = False) -> Iterator[Path]:
    """A folder to work in that becomes `path` when the work is done.

    Until then everything is in `path` + `.partial` beside it, which stays when the work is stopped
    and is taken up again by `resume`. What `force` replaces is removed only after the new folder
    stands in its place.

    Raises:
        OutputExistsError: `path` exists and `force` was not given.
    """
    check_absent(path, force=force)
    partial = path.with_name(path.name + ".partial")
    if partial.exists() and not resume:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    old = path.with_name(path.name + ".old")
    if path.exists():
        path.rename(old)
    partial.rename(path)
    if old.exists():
        shutil.rmtree(old)


def check_absent(path: Path, *, force: bool) -> None:
    """Refuse to write where something is, unless it is to be replaced.

    Raises:
        OutputExistsError: Naming the path.
    """
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists; use --force to replace it")


def write_json(path: Path, content: Any) -> None:
    """Write one JSON document through a sibling temporary file.

    Raises:
        ValueError: The content holds NaN or an infinity.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
