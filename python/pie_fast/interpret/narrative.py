"""A short story of a circuit, layer by layer, from what its features' rules say.

    theme      what a feature does in one phrase (:mod:`pie_fast.interpret.themes`)
    group      neighbouring layers whose strongest theme is the same
    sentences  a group's strongest theme, then a few more, each with how many features have it,
               and which share of the circuit's |effect| they carry, and what is left unsaid

Strongest is the larger sum of |FAP score|. Shares are of the whole circuit, so that a reader sees
how much of it a sentence covers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pie_fast.errors import PieFastError
from pie_fast.interpret.themes import Told, phrase
from pie_fast.interpretation import Interpretation

#: themes of a group that are told; the rest is counted
TOLD = 4

_SINGULAR = {"mark": "marks", "carry": "carries", "follow": "follows", "are": "is", "go": "goes"}


@dataclass(frozen=True, slots=True)
class Statement:
    """What some features of a group of layers have in common.

    Attributes:
        text: A phrase that begins with a verb in the plural.
        features: Their names, strongest first.
        share: Of the circuit's |effect| that they carry.
    """

    text: str
    features: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class LayerStory:
    """What neighbouring layers do.

    Attributes:
        first: The first of the layers.
        last: The last.
        text: A sentence or two.
        statements: Strongest first, those that the text leaves out as well.
        n_features: Features in these layers.
        share: Of the circuit's |effect| that they carry.
    """

    first: int
    last: int
    text: str
    statements: tuple[Statement, ...]
    n_features: int
    share: float


@dataclass(frozen=True, slots=True)
class Narrative:
    """The story of a circuit.

    Attributes:
        text: All of it, a line a group of layers.
        layers: Groups of layers, ascending.
    """

    text: str
    layers: tuple[LayerStory, ...]

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self)


def narrate(interpretations: Iterable[Interpretation]) -> Narrative:
    """Tell what a circuit does, layer by layer.

    Args:
        interpretations: Of its features, in any order. A `rule` is a mapping with `terms`, lists
            of conditions (each with a `family` of `pie_fast.interpret.rules.facts`, `values`, and
            `texts` of the values), and `held_out`, of which `average_precision` and `coverage`
            count.

    Raises:
        PieFastError: A feature without a layer, an effect that is not finite, or a rule of
            another form.
    """
    features = [_told(one) for one in interpretations]
    total = _effect(features)
    by_layer: dict[int, list[Told]] = defaultdict(list)
    for feature in features:
        by_layer[feature.layer].append(feature)
    groups: list[list[Told]] = []
    themes: list[tuple[Any, ...]] = []
    for layer in sorted(by_layer):
        theme = _by_theme(by_layer[layer])[0][0].theme
        if themes and themes[-1] == theme:
            groups[-1] += by_layer[layer]
        else:
            groups.append(list(by_layer[layer]))
            themes.append(theme)
    layers = tuple(_story(group, total) for group in groups)
    text = "\n".join(layer.text for layer in layers) or "The circuit has no features."
    return Narrative(text, layers)


def _told(one: Interpretation) -> Told:
    layer, effect = one.layer, abs(float(one.fap_score))
    if layer is None:
        raise PieFastError(f"feature {one.feature} has no layer, so a story by layer has no place")
    if not math.isfinite(effect):
        raise PieFastError(f"feature {one.feature} has the effect {one.fap_score}, must be finite")
    return Told.of(one, layer, effect)


def _by_theme(features: Sequence[Told]) -> list[list[Told]]:
    """Features of one theme together, strongest first; themes strongest first."""
    themes: dict[tuple[Any, ...], list[Told]] = defaultdict(list)
    for feature in sorted(features, key=lambda f: (-f.effect, f.layer, str(f.one.feature))):
        themes[feature.theme].append(feature)

    def order(same: list[Told]) -> tuple[Any, ...]:
        return -_effect(same), -len(same), tuple(map(str, same[0].theme))

    return sorted(themes.values(), key=order)


def _story(group: Sequence[Told], total: float) -> LayerStory:
    statements = tuple(
        Statement(
            phrase(same), tuple(str(f.one.feature) for f in same), _share(_effect(same), total)
        )
        for same in _by_theme(group)
    )
    first, last = min(f.layer for f in group), max(f.layer for f in group)
    share = _share(_effect(group), total)
    return LayerStory(
        first, last, _sentence(first, last, statements, share), statements, len(group), share
    )


def _sentence(first: int, last: int, statements: Sequence[Statement], share: float) -> str:
    layers = f"Layer {first}" if first == last else f"Layers {first}-{last}"
    n = sum(len(statement.features) for statement in statements)
    strongest, *others = (_counted(statement) for statement in statements[:TOLD])
    text = f"{layers} ({_features(n)}, {share:.0%} of the effect): {strongest}."
    if not others:
        return text
    text += f" Of the others {', '.join(others[:-1])}{' and ' * (len(others) > 1)}{others[-1]}"
    rest = statements[TOLD:]
    if rest:
        n_rest, left = sum(len(s.features) for s in rest), sum(s.share for s in rest)
        text += f"; {n_rest} {'does' if n_rest == 1 else 'do'} something else ({left:.0%})"
    return f"{text}."


def _counted(statement: Statement) -> str:
    n, text = len(statement.features), statement.text
    if n == 1:
        verb, rest = text.split(" ", 1)
        text = f"{_SINGULAR[verb]} {rest}"
    return f"{n} {text} ({statement.share:.0%})"


def _features(n: int) -> str:
    return "1 feature" if n == 1 else f"{n} features"


def _effect(features: Iterable[Told]) -> float:
    return math.fsum(feature.effect for feature in features)


def _share(effect: float, total: float) -> float:
    return effect / total if total else 0.0
