"""Texts and lists of token ids as sequences that a model can read, each begun as prompts are.

A tokenizer puts its special tokens (usually the BOS) in front of a prompt. Here they go in front of
every window, so that no feature sees a start of text that it never sees in a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pie_fast.behaviors.drafting import check_tokenizer, encode
from pie_fast.errors import CorpusError

Tokens = tuple[int, ...]


class Windows:
    """Cuts texts and ids into windows.

    Args:
        tokenizer: HuggingFace tokenizer of the model; None reads ids alone, and puts nothing first.
        size: Tokens of a window, those in front included.

    Attributes:
        prefix: What stands in front of each.

    Raises:
        CorpusError: `size` leaves no room for text.
        BehaviorError: The tokenizer ends texts with a special token.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._tokenizer, self._size = tokenizer, size
        self.prefix: Tokens = ()
        if tokenizer is not None:
            check_tokenizer(tokenizer)
            ids = encode(tokenizer, "a b")
            self.prefix = tuple(ids[: len(ids) - len(self._bare("a b"))])
        if size <= len(self.prefix):
            raise CorpusError(f"window is {size} tokens, must be at least {len(self.prefix) + 1}")

    def of_text(self, where: str, text: str) -> Iterator[Tokens]:
        """A text in consecutive windows, the last of them shorter.

        Raises:
            CorpusError: There is no tokenizer, or the text is no Unicode or has no tokens.
        """
        if self._tokenizer is None:
            raise CorpusError(f"{where} is text and needs the model's tokenizer")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # JSON can spell it, tokenizers cannot read it
            raise CorpusError(
                f"{where} holds half a surrogate pair at character {error.start}; must be Unicode"
            ) from error
        return self._cut(where, self._bare(text))

    def of_ids(self, where: str, ids: Sequence[Any]) -> Iterator[Tokens]:
        """The same of token ids, with or without the special tokens in front.

        Raises:
            CorpusError: There are none, or one is not of the tokenizer's vocabulary.
        """
        valid = "integers >= 0" if self._tokenizer is None else f"0 to {len(self._tokenizer) - 1}"
        for at, token in enumerate(ids):
            whole = isinstance(token, int) and not isinstance(token, bool)
            if not whole or token < 0 or (self._tokenizer and token >= len(self._tokenizer)):
                raise CorpusError(f"{where} holds {token!r} at {at}; token ids are {valid}")
        begun = self.prefix and tuple(ids[: len(self.prefix)]) == self.prefix
        return self._cut(where, ids[len(self.prefix) :] if begun else ids)

    def _cut(self, where: str, ids: Sequence[int]) -> Iterator[Tokens]:
        if not ids:
            raise CorpusError(f"{where} has no tokens; at least 1 is needed")
        step = self._size - len(self.prefix)
        return ((*self.prefix, *ids[at : at + step]) for at in range(0, len(ids), step))

    def _bare(self, text: str) -> list[int]:
        # not verbose: texts longer than the model's context are cut here
        found = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return [int(i) for i in found]
