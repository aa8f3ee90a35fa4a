"""What somebody probably meant to type. No import of weight: the command line starts with it."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; did you mean 'discover'?`, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(given, list(known), n=2)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
