"""Where batches begin: at multiples of a size that is halved where memory runs out.

Which prompts stand together decides the last bits of their numbers, so a capture records its cuts
and one that resumes it takes them over: the same batches again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pie_fast.errors import DumpError


class Cuts:
    """Batches of so many prompts from the first one on, of fewer from some prompt on.

    Args:
        size: Prompts a batch, at first.
        recorded: `spans` of the cuts to go on with.

    Attributes:
        spans: `[first prompt, prompts a batch]`, ascending by first prompt, from 0 on.

    Raises:
        DumpError: What was recorded is not of this form.
    """

    def __init__(self, size: int, recorded: Any = None) -> None:
        self.spans: list[list[int]] = [[0, size]] if recorded is None else _checked(recorded)

    def size(self, prompt: int) -> int:
        """Prompts of the batch that this prompt is in."""
        return self._span(prompt)[1]

    def start(self, prompt: int) -> int:
        """The first prompt of that batch."""
        first, size = self._span(prompt)
        return prompt - (prompt - first) % size

    @property
    def smallest(self) -> int:
        """Prompts of the smallest batch."""
        return min(size for _, size in self.spans)

    def halve(self, prompt: int) -> int:
        """Halve batches from this first prompt of a batch on; how many prompts they have now."""
        size = self.size(prompt) // 2
        self.spans = [span for span in self.spans if span[0] < prompt] + [[prompt, size]]
        return size

    def _span(self, prompt: int) -> list[int]:
        return next(span for span in reversed(self.spans) if span[0] <= prompt)


def _checked(recorded: Any) -> list[list[int]]:
    fits = isinstance(recorded, list) and all(
        isinstance(span, list) and len(span) == 2 and all(type(n) is int for n in span)
        for span in recorded
    )
    firsts: Sequence[int] = [span[0] for span in recorded] if fits else ()
    if not firsts or firsts[0] != 0 or sorted(set(firsts)) != list(firsts):
        raise DumpError(f"manifest: batches is {recorded!r}, must rise from prompt 0")
    if any(size < 1 for _, size in recorded):
        raise DumpError(f"manifest: batches is {recorded!r}, sizes must be at least 1")
    return [list(span) for span in recorded]
