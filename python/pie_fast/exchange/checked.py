"""Files of others are read here: JSON or JSON Lines, gzipped or not, and fields that are checked.

Nothing read is trusted: a file too large, text that is no JSON, NaN, numbers of thousands of
digits and fields of another type are refused with file, line, field and value.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeGuard

from pie_fast.errors import DumpError
from pie_fast.untrusted import load_json, shown

#: bytes of a file's text; beyond it a small gzipped file could fill the memory
LARGEST = 1 << 30

#: a feature's layer or index, a token id or a position is below this
LARGEST_INT = 2**53


class Record(NamedTuple):
    """One JSON object and where it stands.

    Attributes:
        where: File and line, as errors name them.
        fields: The object.
    """

    where: str
    fields: Mapping[str, Any]

    def refuse(self, name: str, valid: str) -> NoReturn:
        """Say what is wrong with a field.

        Raises:
            DumpError: Always; names file, line, field, value and `valid`.
        """
        if name not in self.fields:
            raise DumpError(f"{self.where}: field {name!r} is missing; it must be {valid}")
        raise DumpError(
            f"{self.where}: field {name!r} is {shown(self.fields[name])}, must be {valid}"
        )

    def text(self, name: str, *, default: str | None = None, empty: bool = True) -> str:
        """A text field; null and no such field are `default`, where there is one."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not is_text(value) or not (empty or value.strip()):
            self.refuse(name, "text" if empty else "text that is not empty")
        return value

    def integer(self, name: str, *, least: int = 0) -> int:
        """An integer from `least` on."""
        value = self.fields.get(name)
        if not is_integer(value) or not least <= value < LARGEST_INT:
            self.refuse(name, f"an integer from {least} to {LARGEST_INT - 1}")
        return int(value)

    def number(self, name: str, *, optional: bool = False) -> float | None:
        """A finite number; null and no such field are None where it is optional."""
        value = self.fields.get(name)
        if value is None and optional:
            return None
        if not is_number(value):
            self.refuse(name, "a finite number" + " or null" * optional)
        return float(value)

    def mapping(self, name: str) -> Record:
        """A field that is an object; an empty one where it is null or missing."""
        value = self.fields.get(name)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            self.refuse(name, "an object")
        return Record(f"{self.where}, {name}", value)

    def records(self, name: str) -> list[Record]:
        """A field that is a list of objects; empty where it is null or missing."""
        value = self.fields.get(name)
        if value is None:
            value = []
        if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
            self.refuse(name, "a list of objects")
        return [Record(f"{self.where}, {name} {n}", v) for n, v in enumerate(value)]

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of texts."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(v, str) and is_text(v) for v in value):
            self.refuse(name, "a list of texts")
        return tuple(value)


def is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8: JSON can spell half a character."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a JSON value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number that a float can hold."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_integer(value) and abs(value) < 2**1000


def read_text(path: str | Path) -> str:
    """The text of a file, gzipped or not, by its first bytes.

    Raises:
        DumpError: It cannot be read, is no UTF-8 or no whole gzip file, or is too large.
    """
    try:
        with Path(path).open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            source = gzip.GzipFile(fileobj=file) if zipped else file
            data = source.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DumpError(f"{path} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise DumpError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > LARGEST:
        raise DumpError(f"{path} holds more than {LARGEST} bytes of text, which is the most")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DumpError(f"{path} is not UTF-8 text: byte {error.start} is invalid") from error


def parse_json(where: str, text: str) -> Any:
    """A JSON value; NaN and infinity, which are no JSON, are refused.

    Raises:
        DumpError: Naming `where` and the place.
    """

    try:
        return load_json(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DumpError(f"{where}: not JSON: {error.msg} at {place}") from error
    except ValueError as error:
        raise DumpError(f"{where}: not JSON that can be read: {error}") from error


def read_lines(path: str | Path) -> list[Record]:
    """The objects of a JSON Lines file; blank lines are passed over.

    Raises:
        DumpError: A line that is no JSON object.
    """
    # not splitlines(): it also cuts at characters that JSON allows inside texts
    lines = enumerate(read_text(path).split("\n"), 1)
    return [_object(f"{path}, line {n}", line) for n, line in lines if line.strip()]


def read_objects(path: str | Path) -> list[Record]:
    """The objects of a file that is a JSON list, one JSON object, or JSON Lines.

    Raises:
        DumpError: It is none of these.
    """
    text = read_text(path)
    start = text.lstrip()[:1]
    if start == "[":
        found = parse_json(str(path), text)
        return [_checked(f"{path}, entry {n}", value) for n, value in enumerate(found)]
    lines = [line for line in text.split("\n") if line.strip()]
    if start == "{" and len(lines) > 1 and not lines[0].rstrip().endswith("}"):
        return [_object(str(path), text)]  # one object over several lines
    return read_lines(path)


def _object(where: str, text: str) -> Record:
    return _checked(where, parse_json(where, text))


def _checked(where: str, value: object) -> Record:
    if not isinstance(value, Mapping):
        raise DumpError(f"{where}: expected an object, found {shown(value)}")
    return Record(where, value)


def first_double(keys: Sequence[object]) -> tuple[int, int] | None:
    """The places of the first two equal keys, or None."""
    seen: dict[object, int] = {}
    for place, key in enumerate(keys):
        if key in seen:
            return seen[key], place
        seen[key] = place
    return None
