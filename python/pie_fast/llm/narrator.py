"""What a circuit does as a whole, layer by layer, told by a language model from its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pie_fast.interpretation import Interpretation
from pie_fast.llm.answers import Narration
from pie_fast.llm.client import Chat
from pie_fast.llm.prompts import render
from pie_fast.llm.request import Request

_TEMPLATE = "narrate.v1"


@dataclass(frozen=True, slots=True)
class Narrative:
    """A circuit in words.

    Attributes:
        layers: Layers (``0-1``, or ``3``) and what they do, in ascending order.
        summary: All of it in short.
        narrator: What wrote it.
    """

    layers: tuple[tuple[str, str], ...]
    summary: str
    narrator: str


class LlmNarrator:
    """Tells circuits.

    Args:
        chat: The language model.
        n_links: Of each feature, at most so many of those it feeds.
        n_tokens: And so many promoted tokens.
    """

    def __init__(self, chat: Chat, *, n_links: int = 3, n_tokens: int = 3) -> None:
        self.chat, self._n_links, self._n_tokens = chat, n_links, n_tokens

    def narrate(self, interpretations: Sequence[Interpretation]) -> Narrative | None:
        """What features with labels do together.

        Returns:
            None where there is nothing to tell, or the language model gave no answer, which the
            chat's ``failures`` tell.

        Raises:
            UnusableError: The endpoint answers nothing.
        """
        if not interpretations:
            return None
        request = Request(
            template=_TEMPLATE,
            about=f"{len(interpretations)} features",
            messages=render(_TEMPLATE, circuit=self._circuit(interpretations)),
            schema=Narration,
            answer_tokens=400,
        )
        (answer,) = self.chat.ask_all([request])
        if answer is None:
            return None
        told = sorted(answer.layers, key=lambda part: int(part.layers.partition("-")[0]))
        return Narrative(
            layers=tuple((part.layers, part.text) for part in told),
            summary=answer.summary,
            narrator=f"openai:{self.chat.model}",
        )

    def _circuit(self, interpretations: Sequence[Interpretation]) -> dict[str, list[Any]]:
        """The units of each layer as data, strongest effect first."""
        layers: dict[str, list[Any]] = {}
        strongest_first = sorted(interpretations, key=lambda i: -abs(i.fap_score))
        for one in sorted(strongest_first, key=lambda i: -1 if i.layer is None else i.layer):
            unit = {
                "unit": str(one.feature),
                "label": one.label,
                "effect": float(f"{one.fap_score:.3g}") if math.isfinite(one.fap_score) else None,
                "promotes": [t.token for t in one.promoted[: self._n_tokens]],
                "feeds": [str(link.feature) for link in one.feeds[: self._n_links]],
            }
            layers.setdefault("unknown" if one.layer is None else str(one.layer), []).append(unit)
        return layers
