"""Files that tell whether they are still what was written: each holds a sha256 of itself.

A bit that falls in a number leaves a number: JSON and safetensors stay valid, and the answer would
be another one. So what is written here ends in a checksum, and what is read is compared. A file
without one (older, or made by hand, or edited and its last line removed) is read as it is.

JSON: ``"checksum"`` is the last key, the sha256 of all bytes before it.
safetensors: ``checksum`` in the metadata, the sha256 of the file with 64 zeros in its place.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from pie_fast import storage
from pie_fast.errors import DumpError, PieFastError
from pie_fast.untrusted import LONGEST_HEADER, check_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY = storage.SEAL

#: the last line of a file that was sealed, whatever a bit made of the name of the key
_LAST = re.compile(rb'\n "[^\n]{8}": "[0-9a-f]{64}"\n\}\Z')

#: bytes hashed at once
_CHUNK = 1 << 22


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object that ends in its checksum, whole or not at all.

    Raises:
        ValueError: NaN or infinity in ``value``.
        OSError: It cannot be written.
    """
    body = {key: found for key, found in value.items() if key != KEY}
    text = json.dumps(body, indent=1, allow_nan=False)
    before = (text[:-2] + ",\n " if body else "{\n ").encode()
    with storage.replacing(path) as file:
        file.write(before + f'"{KEY}": "{hashlib.sha256(before).hexdigest()}"\n}}'.encode())


def unsealed(path: Path, data: bytes, value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object without its checksum.

    Args:
        path: Of the file, for errors.
        data: All of it.
        value: What was parsed from it.

    Raises:
        PieFastError: The checksum is another one.
    """
    if KEY not in value:
        if _LAST.search(data):
            raise PieFastError(f"{path}: {KEY}: another name stands in its place: it was changed")
        return value
    before = data[: data.rfind(f'"{KEY}"'.encode())]
    found = hashlib.sha256(before).hexdigest()
    if value[KEY] != found:
        raise PieFastError(
            f"{path}: {KEY} is {value[KEY]!r}, the bytes before it have {found}: the file was "
            f"changed; remove the key {KEY} if that was meant"
        )
    return {key: found for key, found in value.items() if key != KEY}


def check_safetensors(path: Path) -> None:
    """Compare the checksum of a safetensors file, if it has one that can be found.

    What is no safetensors file is left to its reader to refuse.

    Raises:
        DumpError: It is another one.
        OSError: The file cannot be read.
    """
    check_regular(path)
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if length > min(path.stat().st_size, LONGEST_HEADER):
            return
        header = file.read(length)
        try:
            promised = json.loads(header)["__metadata__"][KEY]
        except (ValueError, LookupError, TypeError, RecursionError):
            return
        mark = str(promised).encode()
        digest = hashlib.sha256(head + header.replace(mark, storage.BLANK.encode(), 1))
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != promised:
        raise DumpError(
            f"{path}: {KEY} is {promised!r}, the file has {digest.hexdigest()}: it was changed"
        )
