"""Token ids as text, one by one, whatever the tokenizer."""

from __future__ import annotations

import json
from functools import cache
from typing import Any


class Vocabulary:
    """Text of single tokens; ``<id>`` where there is no tokenizer or it knows no text.

    Attributes:
        tokenizer: A HuggingFace tokenizer (only ``decode`` is needed), or None.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.text = cache(self._text)
        self._special = frozenset(getattr(tokenizer, "all_special_ids", None) or ())

    def is_special(self, token: int) -> bool:
        """Whether the token is one of the tokenizer's special ones (BOS, padding, ...)."""
        return token in self._special

    def quoted(self, token: int) -> str:
        """The token as it appears in a sentence: quoted, line breaks escaped."""
        text = self.text(token)
        unknown = text == f"<{token}>"
        return text if unknown else json.dumps(text, ensure_ascii=False)

    def _text(self, token: int) -> str:
        if self.tokenizer is None:
            return f"<{token}>"
        text = str(self.tokenizer.decode([token]))
        # SentencePiece tokenizers drop the space in front of a text, which a single token is.
        pieces = getattr(self.tokenizer, "convert_ids_to_tokens", None)
        piece = pieces(token) if pieces is not None else None
        if isinstance(piece, str) and piece.startswith("▁") and not text.startswith(" "):
            text = f" {text}"
        return text or f"<{token}>"
