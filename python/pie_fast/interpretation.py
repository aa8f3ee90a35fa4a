"""What one feature of a circuit does, as data: its score, contexts, tokens and a label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field
from typing import Any

from pie_fast import display


@dataclass(frozen=True, slots=True)
class TopContext:
    """A sequence that shows what the feature does.

    Attributes:
        tokens: The sequence's tokens as text.
        peak: Index into ``tokens`` of the strongest activation; None where it is silent.
        activation: The activation there; 0 where it is silent.
        kind: ``top`` (among the strongest), ``quantile`` (spread over all it fires in) or
            ``silent`` (it does not fire).
        activations: Of every token; empty where only the peak is known.
        source: Where the sequence comes from: a behaviour's name, a file, a dataset.
    """

    tokens: tuple[str, ...]
    peak: int | None
    activation: float
    kind: str = "top"
    activations: tuple[float, ...] = ()
    source: str = ""

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
class Histogram:
    """How often activations of each size occur, over all counted positions where it fires.

    Attributes:
        edges: ``[n + 1]`` ascending sizes ``|activation|``.
        counts: ``[n]`` positions in each bin.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """Another kept feature, and how strongly the two belong together.

    Attributes:
        feature: The other feature.
        weight: Of ``coactive`` the share of the positions where this feature fires at which the
            other one fires too; of ``fed_by`` and ``feeds`` the direct effect, in units of the
            fed feature's pre-activation, mean over prompts of the sum over positions.
    """

    feature: Any
    weight: float


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of an explanation's quality, or why there is none.

    Attributes:
        value: As its definition has it; None where it is not defined.
        signed: The same before its absolute value was taken; None where it has no sign.
        n_positive: Instances of the concept that it was measured on.
        n_negative: Instances without it.
        why: Why there is no value.
    """

    value: float | None
    signed: float | None = None
    n_positive: int = 0
    n_negative: int = 0
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What one feature does; ``float(interpretation)`` is its FAP score.

    Attributes:
        feature: The feature.
        fap_score: Its signed first-order effect on the behaviour's metric.
        label: One line for people.
        layer: The layer it reads, where the feature says.
        positions: Token positions where it is active, ascending, over the prompts looked at.
        contexts: Sequences that show it: strongest first, then spread over all it fires in, then
            some it is silent in.
        promoted: Output tokens that its writes raise most, strongest first.
        suppressed: Output tokens that its writes lower most, strongest first.
        label_quality: How well the label's rule finds where it is strong: average precision above
            chance (1 is perfect, 0 knows nothing) over positions of prompts that had no say in the
            rule. None where there is no such measure.
        n_active_prompts: Prompts, of those looked at, in which it fires; None if not counted.
        explainer: What wrote the label: ``rules``, or ``openai:`` and a model's name.
        rule: The rule in plain values, whatever wrote the label; None where there is none.
        density: Share of the positions looked at where it fires; None if not counted.
        histogram: Of its activations; None if not counted.
        coactive: Other kept features that fire where it fires, most often first.
        fed_by: Kept features that raise or lower it directly, strongest first.
        feeds: Kept features that it raises or lowers directly, strongest first.
        quality: Measures by name. What a rule judged ends in ``_rule``, what a language model
            judged in ``_llm``; the two are never one number.
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
    explainer: str = "rules"
    rule: Mapping[str, Any] | None = None
    density: float | None = None
    histogram: Histogram | None = None
    coactive: tuple[Link, ...] = ()
    fed_by: tuple[Link, ...] = ()
    feeds: tuple[Link, ...] = ()
    quality: Mapping[str, Measure] = field(default_factory=dict)

    def __float__(self) -> float:
        return float(self.fap_score)

    def _repr_html_(self) -> str:
        return display.interpretation(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; features appear as their text."""
        result = {
            "feature": str(self.feature),
            "layer": self.layer,
            "fap_score": float(self.fap_score),
            "label": self.label,
            "explainer": self.explainer,
            "rule": None if self.rule is None else dict(self.rule),
            "label_quality": self.label_quality,
            "n_active_prompts": self.n_active_prompts,
            "positions": list(self.positions),
            "density": self.density,
            "histogram": None if self.histogram is None else asdict(self.histogram),
            "contexts": [asdict(context) for context in self.contexts],
            "promoted": [asdict(token) for token in self.promoted],
            "suppressed": [asdict(token) for token in self.suppressed],
            "coactive": _links(self.coactive),
            "fed_by": _links(self.fed_by),
            "feeds": _links(self.feeds),
            "quality": {name: asdict(measure) for name, measure in self.quality.items()},
        }
        index = getattr(self.feature, "index", None)
        if isinstance(index, int):  # not so for a tuple feature, whose index is a method
            result["index"] = index
        return result


def _links(links: Sequence[Link]) -> list[dict[str, Any]]:
    return [{"feature": str(link.feature), "weight": link.weight} for link in links]


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
