"""Ways to damage a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

#: damages the first file (or exchanges it with the second) and says what it did
Damage = Callable[[Path, Path, Random], str]


def truncate(file: Path, _: Path, rng: Random) -> str:
    """Cut off at any byte."""
    data = file.read_bytes()
    n = rng.randrange(len(data))
    file.write_bytes(data[:n])
    return f"cut to {n} of {len(data)} bytes"


def flip(file: Path, _: Path, rng: Random) -> str:
    """Turn one bit over."""
    data = bytearray(file.read_bytes())
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    data[at] ^= 1 << bit
    file.write_bytes(data)
    return f"bit {bit} of byte {at}"


def delete(file: Path, _: Path, rng: Random) -> str:
    """Remove it."""
    file.unlink()
    return "deleted"


def swap(file: Path, other: Path, rng: Random) -> str:
    """Exchange it with another file."""
    mine, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(mine)
    return f"exchanged with {other.name}"


def duplicate(file: Path, _: Path, rng: Random) -> str:
    """Write a stretch of it twice, as a retried write would."""
    data = file.read_bytes()
    begin = rng.randrange(len(data))
    end = min(len(data), begin + rng.randrange(1, 4096))
    file.write_bytes(data[:end] + data[begin:])
    return f"bytes {begin} to {end} twice"


def append(file: Path, _: Path, rng: Random) -> str:
    """Add bytes at the end."""
    n = rng.randrange(1, 64)
    with file.open("ab") as out:
        out.write(rng.randbytes(n))
    return f"{n} bytes more"


#: bits fall most often: three of eight faults
DAMAGES: tuple[Damage, ...] = (truncate, flip, flip, flip, delete, swap, duplicate, append)
