"""Stages of a run whose results outlive the process: each is worked out once, whatever stops it.

    RUN/stages/NAME.json    what a stage found, of what, and its hash; gone when the run is finished

A file that does not have its hash, or is of something else, is no result: the stage runs again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pie_fast.journal import Journal, Note
from pie_fast.storage import write_json

#: the folder of results
STAGES = "stages"


class Checkpoints:
    """The saved stages of a run.

    Args:
        journal: Of the run; stages are begun and finished in it.
        note: Told of files that are broken.
        of: What every stage is worked out from, plain values, as JSON has them.
    """

    def __init__(self, journal: Journal, note: Note = lambda _: None, *, of: Any = None) -> None:
        self._journal, self._note, self._of = journal, note, of
        self._folder = journal.folder / STAGES

    def once(self, stage: str, make: Callable[[], Any], of: Any = None) -> Any:
        """What a stage found, from disk where it was finished before.

        Args:
            stage: Its name; one a run.
            make: Works it out: plain values, as JSON has them.
            of: What it was worked out from, plain values too; another one runs it again.

        Returns:
            The same values whether they were read or made: lists for tuples.
        """
        found = self.read(stage, of)
        if found is not None:
            return found[0]
        self._journal.write("stage", stage=stage, state="begun", inputs=self._inputs(of))
        made = json.loads(_text(make()))
        self.save(stage, made, of)
        self._journal.write("stage", stage=stage, state="finished", inputs=self._inputs(of))
        return made

    def read(self, stage: str, of: Any = None) -> tuple[Any] | None:
        """What was last saved of a stage and the same inputs, in a tuple; None for nothing."""
        path = self._path(stage)
        try:
            saved = json.loads(path.read_bytes())
            inputs, value = saved["inputs"], saved["value"]
            whole = saved["sha256"] == _hash([inputs, value])
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, RecursionError):
            whole = False
        if not whole:
            self._note(f"{path} is broken: {stage} runs again")
            return None
        return (value,) if inputs == self._inputs(of) else None

    def save(self, stage: str, value: Any, of: Any = None) -> None:
        """Put what a stage found so far in the place of what was saved of it before."""
        self._folder.mkdir(exist_ok=True)
        inputs = self._inputs(of)
        content = {"inputs": inputs, "sha256": _hash([inputs, value]), "value": value}
        write_json(self._path(stage), content)

    def clear(self) -> None:
        """Remove the results: the run is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _inputs(self, of: Any) -> str:
        return _hash([self._of, of])

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage}.json"


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _hash(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()
