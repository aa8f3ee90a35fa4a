"""What happened in a run's folder: begun by whom, which stages, stopped and resumed, finished.

    RUN/journal.jsonl    one JSON object a line, `event` first, `crc` last

A line is on disk before work goes on, and is never changed. `crc` is the CRC-32 of the line without
it: a last line that a kill or a power cut tore is told, dropped and written over; a broken one
before it is an error. Dates, process ids, seconds and model calls stand here and in no other file,
so that all other files of two runs that do the same are the same to the byte.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pie_fast.errors import JournalError, RunInUseError
from pie_fast.run_files import JOURNAL

#: called with what is to be told
Note = Callable[[str], None]

Event = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    """The journal of a folder.

    Attributes:
        folder: Of the run.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / JOURNAL

    def write(self, event: str, **of: Any) -> None:
        """Append an event with the time and this process; it is on disk on return.

        Raises:
            OSError: The disk is full, say; naming the file, which has then at most a torn line.
        """
        who = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "pid": os.getpid()}
        line = _line({"event": event, **of, **who, "host": socket.gethostname()})
        try:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(self.path)) from None

    def events(self) -> list[Event]:
        """All events that are whole; none where there is no journal.

        Raises:
            JournalError: A line before the last is broken.
        """
        return self._read()[0]

    def last(self, event: str, **of: Any) -> Event | None:
        """The latest event of a name whose fields are these; None for none."""
        for found in reversed(self.events()):
            if found["event"] == event and all(found.get(key) == of[key] for key in of):
                return found
        return None

    def mend(self, note: Note) -> None:
        """Cut off a last line that was torn; only under a lock.

        Raises:
            JournalError: As `events`.
        """
        events, whole, size = self._read()
        if whole == size:
            return
        note(f"{self.path}: line {len(events) + 1} was torn when the run was stopped: dropped")
        with self.path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())

    def _read(self) -> tuple[list[Event], int, int]:
        """Events, the bytes that they take, and the bytes that there are."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0, 0
        events: list[Event] = []
        whole = 0
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            found = _parse(line)
            if found is None:
                if whole + len(line) == len(content):
                    break
                raise JournalError(f"{self.path}: line {number} is broken: its crc is not its own")
            events.append(found)
            whole += len(line)
        return events, whole, len(content)


def begin(
    journal: Journal,
    name: str,
    identity: Mapping[str, Any],
    *,
    command: Sequence[str] | None,
    asked: Mapping[str, Any] | None,
    threads: int,
    resume: bool,
    note: Note,
    free: str = "",
) -> Event:
    """Write that work begins, or goes on.

    Args:
        journal: Of the run, locked.
        name: Of the command.
        identity: What decides the bytes of its result, as JSON has it.
        command: The command line, None where there is none.
        asked: What `pie-fast resume` needs to ask for it again.
        threads: Of torch: they may decide last bits.
        resume: Go on with what was begun and not finished, if anything was.
        note: Told where the number of threads is another one.
        free: A part of the identity; where only that is another one, work begins anew in what is
            there. Empty: nothing may differ.

    Returns:
        The event of the beginning: of what is gone on with, the first.

    Raises:
        JournalError: What was begun is of another identity; with what differs.
    """
    now = json.loads(json.dumps(identity))
    begun = next((one for one in unfinished(journal) if one["name"] == name), None)
    line = None if command is None else list(command)
    of = {"name": name, "command": line, "asked": asked, "identity": now, "threads": threads}
    different = list(differences(begun["identity"], now)) if begun and resume else []
    anew = bool(different and free) and all(one.startswith(f"{free}.") for one in different)
    if anew:
        note(f"begun otherwise: {'; '.join(different)}; goes on with this, from the capture on")
    if begun is None or not resume or anew:
        journal.write("begun", **of)
        return of
    if different:
        raise JournalError(
            f"{journal.path}: the run was begun otherwise: {'; '.join(different)}; resume it as it "
            "was begun, or begin anew with --force"
        )
    if begun["threads"] != threads:
        note(
            f"begun with {begun['threads']} threads, gone on with {threads}: the last bits may "
            "differ from those of a run that was not stopped; OMP_NUM_THREADS sets them"
        )
    journal.write("resumed", name=name, command=line, threads=threads)
    return begun


def unfinished(journal: Journal) -> list[Event]:
    """The beginnings of what was not finished, the last of each name."""
    begun: dict[str, Event] = {}
    for event in journal.events():
        if event["event"] == "begun":
            begun[event["name"]] = event
        elif event["event"] == "finished":
            begun.pop(event["name"], None)
    return list(begun.values())


def spent_by(folder: Path, name: str) -> dict[str, Any]:
    """Seconds and model calls of the command that last finished in a folder; {} where unknown.

    Raises:
        JournalError: The journal is broken.
    """
    finished = Journal(folder).last("finished", name=name)
    return {} if finished is None else dict(finished["spent"])


@contextmanager
def locked(folder: Path, note: Note = lambda _: None) -> Iterator[Journal]:
    """The journal of a folder that no other process works in meanwhile.

    The lock is the system's, on the journal: it ends with the process, however that ends. On
    Windows there is none.

    Raises:
        RunInUseError: Another process works there; with its id.
        JournalError: The journal is broken.
    """
    journal = Journal(folder)
    with ExitStack() as held:
        if sys.platform == "win32":  # where a folder with an open file could not be renamed
            folder.mkdir(parents=True, exist_ok=True)
        else:
            _hold(journal, held)
        journal.mend(note)
        yield journal


def _hold(journal: Journal, held: ExitStack) -> None:
    """Lock the journal for as long as `held` is open."""
    import fcntl

    while True:
        journal.folder.mkdir(parents=True, exist_ok=True)
        file = held.enter_context(journal.path.open("ab"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunInUseError(
                f"{journal.folder} is in use by {_holder(journal)}; wait for it, or stop it"
            ) from None
        if _is_at(file, journal.path):  # else its holder took the folder away meanwhile
            return
        file.close()


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(journal: Journal) -> str:
    events = journal.events()
    if not events:
        return "another process"
    return f"process {events[-1]['pid']} on {events[-1]['host']}"


def _line(event: Event) -> bytes:
    text = json.dumps(event, allow_nan=False)
    return f'{text[:-1]}, "crc": "{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def _parse(line: bytes) -> Event | None:
    """The event of a line, without its `crc`; None where the line is torn or broken."""
    try:
        event = json.loads(line)
        crc = event.pop("crc")
        whole = line == _line(event) and isinstance(event["event"], str) and crc is not None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return event if whole else None


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What is not as it was recorded, each as `name is X, was Y`; objects field by field."""
    for name in sorted({*recorded, *now}):
        old, new = recorded.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from (f"{name}.{one}" for one in differences(old, new))
        elif old != new:
            yield f"{name} is {new!r}, was {old!r}"
