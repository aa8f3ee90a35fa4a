"""Text files and JSON Lines, read bit by bit, each piece with the place that errors name."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pie_fast.errors import CorpusError
from pie_fast.untrusted import load_json

#: bytes of a line, and characters of a document, that are held at once; longer ones go on in a
#: piece of their own
_PIECE = 1 << 18


def documents(path: Path) -> Iterator[tuple[str, str]]:
    """The documents of a text file: what stands between blank lines.

    A blank line is the one border that any text file can show without being marked up. So no
    window holds parts of two documents, and a file of short paragraphs gives short sequences. One
    of more than 262,144 characters is read in pieces.

    Yields:
        Where it starts, and its text without the line break at its end.

    Raises:
        CorpusError: The file cannot be read or is not UTF-8: with the line and the byte.
    """
    start, held, size = 1, list[str](), 0
    for number, line in _lines(path, _PIECE):
        blank = not line.strip()
        if held and (blank or size >= _PIECE):
            yield f"{path}, line {start}", "".join(held).rstrip("\n")
            held, size = [], 0
        if not blank:
            start = start if held else number
            held.append(line)
            size += len(line)
    if held:
        yield f"{path}, line {start}", "".join(held).rstrip("\n")


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file; blank lines are stepped over.

    Yields:
        Where it stands, and the object.

    Raises:
        CorpusError: The file cannot be read, is not UTF-8, or a line is no JSON object.
    """
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            found = load_json(line.rstrip(), finite=False)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
        except ValueError as error:
            raise CorpusError(f"{where}: not JSON that can be read: {error}") from error
        if not isinstance(found, dict):
            raise CorpusError(f"{where}: expected an object, found {type(found).__name__}")
        yield where, found


def _lines(path: Path, most: int = -1) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1; one of more than `most` bytes comes in several parts."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    number = 1
    try:
        with path.open("rb") as file:
            while raw := file.readline(most):
                yield number, decoder.decode(raw).replace("\r\n", "\n")
                number += raw.endswith(b"\n")
            decoder.decode(b"", final=True)
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise CorpusError(f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8 text") from error
