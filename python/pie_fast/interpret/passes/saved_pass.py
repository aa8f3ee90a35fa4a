"""A pass over a corpus that can be stopped: its state in one file, whole at any time.

    FOLDER/contexts.safetensors    the collector's arrays; in the metadata what the pass is of,
                                   how many sequences are in it, and how large batches are

A state is gone on with by the pass that it is of and by no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pie_fast.errors import DumpError
from pie_fast.storage import write_safetensors
from pie_fast.untrusted import load_json

#: the file in its folder
FILE = "contexts.safetensors"

#: of the file's metadata; other versions are refused
_FORMAT = "1"


class State(NamedTuple):
    """How far a pass got.

    Attributes:
        done: Sequences that are in it, from the first one on.
        batch_tokens: Tokens a batch, less than at first where memory ran out.
        arrays: The collector's.
    """

    done: int
    batch_tokens: int
    arrays: Mapping[str, NDArray[Any]]


class SavedPass:
    """The file of one pass.

    Args:
        folder: Made when the first state is saved.
        identity: What the pass is of, as JSON has it: name -> value.

    Attributes:
        path: The file.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(folder) / FILE
        self.identity = json.loads(json.dumps(identity))

    def save(self, state: State) -> None:
        """Put a state in the place of the one before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "format": _FORMAT,
            "identity": json.dumps(self.identity),
            "done": str(state.done),
            "batch_tokens": str(state.batch_tokens),
        }
        write_safetensors(self.path, state.arrays, metadata)

    def load(self) -> State | None:
        """The state that is there; None for none.

        Raises:
            DumpError: It is broken, or of another pass: with what differs.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise DumpError(f"{self.path}: not a readable safetensors file: {error}") from error
        self._check(metadata)
        done, batch_tokens = (self._count(metadata, name) for name in ("done", "batch_tokens"))
        return State(done, batch_tokens, arrays)

    def _check(self, metadata: Mapping[str, str]) -> None:
        if metadata.get("format") != _FORMAT:
            raise DumpError(
                f"{self.path}: format is {metadata.get('format')!r}, must be {_FORMAT!r}"
            )
        try:
            theirs = load_json(metadata.get("identity", ""))
        except ValueError as error:
            raise DumpError(f"{self.path}: identity is not JSON: {error}") from error
        if not isinstance(theirs, dict):
            raise DumpError(f"{self.path}: identity is {theirs!r}, must be an object")
        for name, value in self.identity.items():
            if theirs.get(name) != value:
                raise DumpError(
                    f"{self.path} is of another pass: its {name} is {_short(theirs.get(name))}, "
                    f"here it is {_short(value)}; remove the file or choose another folder"
                )

    def _count(self, metadata: Mapping[str, str], name: str) -> int:
        said = metadata.get(name, "")
        if not (said.isascii() and said.isdigit() and int(said) > 0):
            raise DumpError(f"{self.path}: {name} is {said!r}, must be a number of at least 1")
        return int(said)


def _short(value: Any) -> str:
    said = json.dumps(value)
    return said if len(said) <= 80 else f"{said[:77]}..."
