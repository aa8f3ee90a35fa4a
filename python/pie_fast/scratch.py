"""Folders for a while: those of processes that were killed go when the next one makes its own.

    BASE/pie-fast-HOST-.../lock    locked by the process that made the folder, until it ends

The lock is the system's and ends with the process, however that ends. Other hosts may share the
base and not its locks, so only folders of this host are looked at. On Windows none is removed.
"""

from __future__ import annotations

import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK = "lock"


@contextmanager
def held_folder(base: Path) -> Iterator[Path]:
    """A new folder in `base`, held while the context lasts; whoever asks for it removes it.

    Raises:
        OSError: It cannot be made.
    """
    prefix = f"pie-fast-{socket.gethostname()}-"
    name = f"{prefix}{uuid.uuid4().hex}"
    new = base / f".{name}"
    new.mkdir()
    with (new / LOCK).open("wb") as lock:
        _take(lock)
        folder = new.rename(base / name)  # nobody sees it before it is held
        for old in base.glob(f"{prefix}*"):
            _remove_if_left(old)
        yield folder


def _take(lock: IO[bytes]) -> bool:
    """Lock a file, if no other process holds it."""
    if sys.platform == "win32":
        return False
    import fcntl

    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _remove_if_left(folder: Path) -> None:
    """Remove a folder whose process is gone."""
    with suppress(FileNotFoundError), (folder / LOCK).open("rb") as lock:
        if _take(lock):
            shutil.rmtree(folder, ignore_errors=True)
