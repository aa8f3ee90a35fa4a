"""Folders that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pie_fast.errors import OutputExistsError
from pie_fast.seals import write_sealed as write_json

#: the file that tells a run from any other folder
RESULT = "result.json"

__all__ = ["RESULT", "check_absent", "check_new_folder", "new_folder", "write_json"]


@contextmanager
def new_folder(path: Path, *, force: bool = False, resume: bool = False) -> Iterator[Path]:
    """A folder to work in that becomes `path` when the work is done.

    Until then everything is in `path` + `.partial` beside it, which stays when the work is stopped
    and is taken up again by `resume`. What `force` replaces is removed only after the new folder
    stands in its place.

    Raises:
        OutputExistsError: See `check_new_folder`.
    """
    partial, old = _beside(path, "partial"), _beside(path, "replaced")
    if _is_run(old) and not path.exists():
        old.rename(path)  # the machine went down between the two renames below
    check_new_folder(path, force=force, resume=resume)
    if partial.exists() and not resume:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
    except BaseException:
        with suppress(OSError):
            partial.rmdir()  # only if nothing worth resuming is in it
        raise
    if not path.exists():
        partial.rename(path)
        return
    if _is_run(old):
        shutil.rmtree(old)
    path.rename(old)
    try:
        partial.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


def check_new_folder(path: Path, *, force: bool, resume: bool) -> None:
    """Refuse what would lose work: a run that is there or was stopped, or a folder of other things.

    Raises:
        OutputExistsError: Naming the path, and what to do.
    """
    check_absent(path, force=force, or_else=", or give another --out", folder=True)
    # An empty folder has nothing to lose.
    if path.exists() and not _is_run(path) and (path.is_file() or any(path.iterdir())):
        raise OutputExistsError(
            f"{path} exists and is not a run (no {RESULT}): it is not replaced; give another --out"
        )
    partial = _beside(path, "partial")
    if partial.exists() and not (force or resume):
        raise OutputExistsError(
            f"{partial} holds a run that was stopped; go on with --resume, or begin anew with "
            f"--force"
        )


def check_absent(path: Path, *, force: bool, or_else: str = "", folder: bool = False) -> None:
    """Refuse to write where something is, unless it is to be replaced.

    Args:
        path: A file to be, or a folder.
        force: Replace what is there; a file never replaces a folder.
        or_else: What else to do, for the error.
        folder: `path` is a folder to be.

    Raises:
        OutputExistsError: Naming the path.
    """
    if path.is_dir() and not folder:
        raise OutputExistsError(f"{path} is a folder; give the name of a file")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists; use --force to replace it{or_else}")


def _is_run(path: Path) -> bool:
    return (path / RESULT).is_file()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")
