"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pie_fast.errors import OutputExistsError
from pie_fast.journal import Note, locked
from pie_fast.run_files import JOURNAL, PARTIAL, RESULT
from pie_fast.seals import write_sealed as write_json
from pie_fast.storage import remove_leftovers, sync_folder

__all__ = [
    "RESULT",
    "check_absent",
    "check_new_folder",
    "new_folder",
    "partial_of",
    "write_json",
]


@contextmanager
def new_folder(
    path: Path, *, force: bool = False, resume: bool = False, note: Note = lambda _: None
) -> Iterator[Path]:
    """A folder to work in that becomes `path` when the work is done.

    Until then everything is in `path` + `.partial` beside it, which stays when the work is stopped
    and is taken up again by `resume`. What `force` replaces is removed only after the new folder
    stands in its place. No other process can work in either meanwhile; each has a journal.

    Raises:
        OutputExistsError: See `check_new_folder`.
        RunInUseError: Another process works on the run.
        JournalError: The journal of what is resumed is broken.
    """
    partial, old = partial_of(path), _beside(path, "replaced")
    if _is_run(old) and not path.exists():
        old.rename(path)  # the machine went down between the two renames below
    check_new_folder(path, force=force, resume=resume)
    with ExitStack() as held:
        if (path / JOURNAL).exists():
            held.enter_context(locked(path, note))
        held.enter_context(locked(partial, note))
        _clear(partial, keep=resume)
        try:
            yield partial
        except BaseException:
            _remove_if_nothing(partial)
            raise
        _put_in_place(partial, path, old)


def put_in_place(path: Path) -> None:
    """Finish `new_folder` where only the rename was missing.

    Raises:
        RunInUseError: Another process works on the run.
    """
    with locked(partial_of(path)):
        _put_in_place(partial_of(path), path, _beside(path, "replaced"))


def partial_of(path: Path) -> Path:
    """Where a run is until it is complete."""
    return path.with_name(path.name + PARTIAL)


def _clear(partial: Path, *, keep: bool) -> None:
    """Begin with nothing but the locked journal, or with what was whole when the work stopped."""
    remove_leftovers(partial)
    if keep:
        return
    for entry in partial.iterdir():
        if entry.name == JOURNAL:
            os.truncate(entry, 0)
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_if_nothing(partial: Path) -> None:
    """Remove the folder if nothing worth resuming is in it."""
    with suppress(OSError):
        if [entry.name for entry in partial.iterdir()] == [JOURNAL]:
            (partial / JOURNAL).unlink()
            partial.rmdir()


def _put_in_place(partial: Path, path: Path, old: Path) -> None:
    if not path.exists():
        partial.rename(path)
        sync_folder(path.parent)
        return
    if _is_run(old):
        shutil.rmtree(old)
    path.rename(old)
    try:
        partial.rename(path)
    except BaseException:
        old.rename(path)
        raise
    sync_folder(path.parent)
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
    partial = partial_of(path)
    if partial.exists() and not (force or resume):
        raise OutputExistsError(
            f"{partial} holds a run that was stopped; pie-fast resume {path} or --resume goes on "
            f"with it, --force begins anew"
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
