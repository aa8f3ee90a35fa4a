"""Answers on disk, one JSON file each, named by the hash of what was asked.

A file appears whole or not at all, and is not believed: it must be of its name, hold the question
that its name is the hash of, and an answer of the schema.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pie_fast.llm.answers import A, InvalidAnswerError, parse
from pie_fast.llm.request import content_hash
from pie_fast.seals import unsealed, write_sealed
from pie_fast.untrusted import load_json

_FORMAT, _VERSION = "pie-fast-llm-answer", 1


#: a request's content, an accepted answer as it was given, and what the server counted
Answer = tuple[dict[str, Any], str, dict[str, int | None]]


class Answers(Protocol):
    """Where a chat looks for answers, and leaves them."""

    def read(self, content: dict[str, Any], schema: type[A]) -> A | None:
        """The answer to a request; None where there is none."""
        ...

    def write(self, content: dict[str, Any], answer: str, usage: dict[str, int | None]) -> None:
        """Store an accepted answer, as it was given."""
        ...


class Told:
    """Answers that another process will store: written, and never read.

    Attributes:
        answers: In the order in which they came.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def read(self, content: dict[str, Any], schema: type[A]) -> A | None:
        """None: whoever asks has looked."""
        return None

    def write(self, content: dict[str, Any], answer: str, usage: dict[str, int | None]) -> None:
        """Keep an accepted answer."""
        self.answers.append((content, answer, usage))


class AnswerCache:
    """A folder of answers.

    Args:
        folder: Where; made when the first answer is written.
        note: Told of files that are broken; the question is asked again.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self.folder, self._note = folder, note

    def path(self, content: dict[str, Any]) -> Path:
        """The file of a request's content."""
        return self.folder / f"{content_hash(content)}.json"

    def read(self, content: dict[str, Any], schema: type[A]) -> A | None:
        """The answer to a request; None where there is none, or a broken one."""
        path = self.path(content)
        try:
            data = path.read_bytes()
            stored = unsealed(path, data, load_json(data))
            if stored["format"] != _FORMAT or stored["version"] != _VERSION:
                raise ValueError(f"format is not {_FORMAT} version {_VERSION}")
            if stored["request"] != content:
                raise ValueError("request is not the one that the file's name is the hash of")
            if not isinstance(stored["answer"], str):
                raise TypeError("answer is not a text")
            return parse(stored["answer"], schema)
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, InvalidAnswerError) as error:
            self._note(f"{path}: not a stored answer, asked again: {type(error).__name__}: {error}")
            return None

    def write(self, content: dict[str, Any], answer: str, usage: dict[str, int | None]) -> None:
        """Store an accepted answer, as it was given."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = {"format": _FORMAT, "version": _VERSION, "request": content}
        write_sealed(self.path(content), stored | {"answer": answer, "usage": usage})
