"""What a circuit does as a whole, layer by layer, told by a language model from its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pie_fast.interpretation import Interpretation
from pie_fast.llm.answers import Narration
from pie_fast.llm.client import Chat
from pie_fast.llm.prompts import render
from pie_fast.llm.request import Request

_TEMPLATE = "narrate.v1"


@dataclass(frozen=True, slots=True)
class LayerText:
    """What neighbouring layers do.

    Attributes:
        first: The first of the layers.
        last: The last.
        text: A sentence or two.
    """

    first: int
    last: int
    text: str

    def __str__(self) -> str:
        layers = (
            f"layer {self.first}" if self.first == self.last else f"layers {self.first}-{self.last}"
        )
        return f"{layers}: {self.text}"


@dataclass(frozen=True, slots=True)
class LlmNarrative:
    """A circuit in words.

    Attributes:
        layers: Groups of layers, ascending.
        summary: All of it in short.
        narrator: What wrote it.
    """

    layers: tuple[LayerText, ...]
    summary: str
    narrator: str

    @property
    def text(self) -> str:
        """A line a group of layers, and the summary."""
        return "\n".join([*map(str, self.layers), self.summary])

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self) | {"text": self.text}


class LlmNarrator:
    """Tells circuits.

    Args:
        chat: The language model.
        n_links: Of each feature, at most so many of those it feeds.
        n_tokens: And so many promoted tokens.
    """

    def __init__(self, chat: Chat, *, n_links: int = 3, n_tokens: int = 3) -> None:
        self.chat, self._n_links, self._n_tokens = chat, n_links, n_tokens

    def narrate(self, interpretations: Sequence[Interpretation]) -> LlmNarrative | None:
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
        layers = sorted((part.span, part.text) for part in answer.layers)
        return LlmNarrative(
            layers=tuple(LayerText(first, last, text) for (first, last), text in layers),
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
