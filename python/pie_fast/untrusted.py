"""JSON of others, and its values in error messages: nothing in it may crash or drown a reader."""

from __future__ import annotations

import json
import math
import reprlib
from typing import TYPE_CHECKING, Any, NoReturn

from pie_fast.errors import DumpError

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes of a safetensors header, as the format has it.
LONGEST_HEADER = 100_000_000

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


def check_regular(path: Path) -> None:
    """Refuse what is there and no file: a pipe would be waited for without end.

    Raises:
        DumpError: It is a pipe, a device or a folder.
    """
    if path.exists() and not path.is_file():
        raise DumpError(f"{path}: is not a regular file")


def load_json(text: str | bytes, *, finite: bool = True) -> Any:
    """A JSON value, as `json.loads` gives it.

    Args:
        text: The text, or its bytes.
        finite: Refuse `NaN`, `Infinity` and numbers too large for a float, as JSON does. Files of
            other programs that Python wrote may have them beside what is read.

    Raises:
        ValueError: It is no JSON or no UTF-8, is nested deeper than can be read, or holds a number
            that is not finite, or of thousands of digits. A `json.JSONDecodeError` where a place is
            known.
    """
    try:
        if not finite:
            return json.loads(text)
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error


def shown(value: object) -> str:
    """A value for an error message, short: deep ones and aliases would make enormous texts."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # YAML and TOML have integers in base 16, of any length
        return "a number of thousands of digits"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON; numbers must be finite")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is more than a float can hold; numbers must be finite")
    return number
