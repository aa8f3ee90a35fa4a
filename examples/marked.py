"""Text between the markers of a table, in a file: how the studies keep a page up to date."""

from __future__ import annotations

import re
from pathlib import Path

from pie_fast.storage import write_text

END = "<!-- /table -->"


def marked(name: str, text: str) -> str:
    """The text between the markers of a table."""
    return f"<!-- table: {name} -->\n\n{text}\n\n{END}"


def update(path: Path, name: str, text: str) -> None:
    """Put the text between the markers of a file.

    Raises:
        SystemExit: The file does not have them once.
    """
    start = f"<!-- table: {name} -->"
    between = f"{re.escape(start)}.*?{re.escape(END)}"
    old = path.read_text(encoding="utf-8")
    # A function: backslashes of a table are no group references.
    new, n = re.subn(between, lambda _: marked(name, text), old, flags=re.S)
    if n != 1:
        raise SystemExit(f"{path} has {start} ... {END} {n} times, not once")
    write_text(path, new)
