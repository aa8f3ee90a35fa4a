"""What one feature of a circuit does, as data: its score, contexts, tokens and a label."""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TopContext:
    """A prompt in which the feature is strongly active.

    Attributes:
        tokens: The prompt's tokens as text.
        peak: Index into ``tokens`` of the strongest activation.
        activation: The activation there.
    """

    tokens: tuple[str, ...]
    peak: int
    activation: float

    def __str__(self) -> str:
        marked = (f"[[{t}]]" if i == self.peak else t for i, t in enumerate(self.tokens))
        return "".join(marked)


@dataclass(frozen=True, slots=True)
class TokenEffect:
    """How much a feature's writes raise or lower one output token.

    Attributes:
        token: The token as text.
        token_id: Its id in the model's vocabulary.
        effect: The change of its logit per unit of activation, before the final norm's scale.
    """

    token: str
    token_id: int
    effect: float


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What one feature does; ``float(interpretation)`` is its FAP score.

    Attributes:
        feature: The feature.
        fap_score: Its signed first-order effect on the behaviour's metric.
        label: One line for people.
        layer: The layer it reads, where the feature says.
        positions: Token positions where it is active, ascending, over the prompts looked at.
        contexts: The prompts in which it is most active, strongest first.
        promoted: Output tokens that its writes raise most, strongest first.
        suppressed: Output tokens that its writes lower most, strongest first.
        label_quality: How well the label's rule predicts where it fires: F1 over the positions
            of prompts that the rule was not mined on. None where there is no such measure.
        n_active_prompts: Prompts, of those looked at, in which it fires; None if not counted.
    """

    feature: Any
    fap_score: float
    label: str = ""
    layer: int | None = None
    positions: tuple[int, ...] = ()
    contexts: tuple[TopContext, ...] = ()
    promoted: tuple[TokenEffect, ...] = ()
    suppressed: tuple[TokenEffect, ...] = ()
    label_quality: float | None = None
    n_active_prompts: int | None = None

    def __float__(self) -> float:
        return float(self.fap_score)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; the feature appears as its text."""
        result = {
            "feature": str(self.feature),
            "layer": self.layer,
            "fap_score": float(self.fap_score),
            "label": self.label,
            "label_quality": self.label_quality,
            "n_active_prompts": self.n_active_prompts,
            "positions": list(self.positions),
            "contexts": [asdict(context) for context in self.contexts],
            "promoted": [asdict(token) for token in self.promoted],
            "suppressed": [asdict(token) for token in self.suppressed],
        }
        index = getattr(self.feature, "index", None)
        if isinstance(index, int):  # not so for a tuple feature, whose index is a method
            result["index"] = index
        return result


def plain_interpretation(feature: Any, fap_score: float, context: Any) -> Interpretation:
    """All that can be said of a feature when the model does not interpret by itself."""
    layer = getattr(feature, "layer", None)
    direction = "raises" if fap_score > 0 else "lowers" if fap_score < 0 else "does not move"
    amount = f" by {abs(fap_score):.3g}" if fap_score and math.isfinite(fap_score) else ""
    where = str(context)
    if isinstance(context, Sized) and not isinstance(context, str):
        where = f"{len(context)} prompts" if len(context) != 1 else "1 prompt"
    return Interpretation(
        feature=feature,
        fap_score=fap_score,
        label=f"{feature} {direction} the metric{amount} on {where}",
        layer=layer if isinstance(layer, int) else None,
    )
