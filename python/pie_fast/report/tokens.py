"""Tokens as people read them: nothing in them is invisible."""

from __future__ import annotations

import unicodedata

#: what stands for whitespace; the newline's mark is followed by none
_MARKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"}

#: Unicode categories of characters that show nothing: controls, formats, separators, and the rest
_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Cs", "Co", "Cn"})


def visible(token: str) -> str:
    """A token with its whitespace and its invisible characters written out.

    A space is ``·``, a newline ``↵``, a tab ``⇥``; other characters that show nothing, those
    that turn the direction of writing included, are ``\\u{200b}`` with their code. A token
    without any character is ``∅``.
    """
    return "".join(map(_shown, token)) or "∅"


def _shown(character: str) -> str:
    if character in _MARKS:
        return _MARKS[character]
    if unicodedata.category(character) in _INVISIBLE:
        return f"\\u{{{ord(character):x}}}"
    return character
