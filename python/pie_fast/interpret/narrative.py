"""A short story of a circuit, layer by layer, from what its features' rules say.

    theme      what a feature does in one phrase: the condition of its rule's first term that
               says most ("marks S2"), else its label; rules that hold poorly are no theme
    group      neighbouring layers whose strongest theme is the same
    sentences  a group's strongest theme, then a few more, each with how many features have it
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
from pie_fast.interpret.rules.facts import EARLIER
from pie_fast.interpret.rules.sentence import ROLES
from pie_fast.interpretation import Interpretation

#: themes of a group that are told; the rest is counted
TOLD = 4

#: a rule whose average precision, held out, is below says too little to tell of
CLEAR = 0.5

#: values of a theme that are spelled out, and characters of a label
_SPELLED, _QUOTED = 4, 80

#: family -> its phrase; the first of a rule's families in this order makes the theme
_PHRASES = {
    "role": "mark {values}",
    EARLIER: "carry which token was {role}",
    "due": "carry which token comes next by repetition",
    "repeat": "mark tokens seen earlier in the prompt",
    "repeated_pair": "mark tokens that complete a pair seen earlier",
    "after_repeat": "mark what follows a token seen earlier",
    "previous_role": "mark what follows {values}",
    "next_promoted": "mark what comes before a token that the same feature raises",
    "promoted": "mark tokens that the same feature raises",
    "class": "mark tokens that are {values}",
    "previous_pair": "mark what follows certain pairs of tokens ({values})",
    "previous_token": "mark what follows certain tokens ({values})",
    "token": "mark certain tokens ({values})",
    "last": "mark the end of the prompt",
    "position": "mark certain positions ({values})",
}

_SINGULAR = {"mark": "marks", "carry": "carries", "follow": "follows", "are": "is", "go": "goes"}

_NO_RULE = "follow no clear rule"


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


@dataclass(frozen=True, slots=True)
class _Told:
    """A feature as the story needs it; `theme` is what makes it equal to others."""

    one: Interpretation
    layer: int
    effect: float
    theme: tuple[Any, ...]


def narrate(interpretations: Iterable[Interpretation]) -> Narrative:
    """Tell what a circuit does, layer by layer.

    Args:
        interpretations: Of its features, in any order. A `rule` is a mapping with `terms`, lists
            of conditions (each with a `family` of `pie_fast.interpret.rules.facts`, `values`, and
            `texts` of the values), and `held_out`, of which `average_precision` counts.

    Raises:
        PieFastError: A feature without a layer, an effect that is not finite, or a rule of
            another form.
    """
    features = [_told(one) for one in interpretations]
    total = _effect(features)
    by_layer: dict[int, list[_Told]] = defaultdict(list)
    for feature in features:
        by_layer[feature.layer].append(feature)
    groups: list[list[_Told]] = []
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


def _told(one: Interpretation) -> _Told:
    layer, effect = one.layer, abs(float(one.fap_score))
    if layer is None:
        raise PieFastError(f"feature {one.feature} has no layer, so a story by layer has no place")
    if not math.isfinite(effect):
        raise PieFastError(f"feature {one.feature} has the effect {one.fap_score}, must be finite")
    return _Told(one, layer, effect, _theme(one))


def _theme(one: Interpretation) -> tuple[Any, ...]:
    """Family and values; values of tokens and positions are examples, so they do not count."""
    conditions = _conditions(one)
    for family in _PHRASES:
        for name, values in conditions:
            if name == family:
                apart = family in ("role", "previous_role", "class")
                return (family, *sorted(values)) if apart else (family,)
            if family == EARLIER and name.startswith(EARLIER):
                return (EARLIER, name.removeprefix(EARLIER))
    if conditions:  # of families that are not told of here
        return ("other", *sorted(name for name, _ in conditions))
    if one.rule is None and one.label and one.explainer != "rules":
        return ("label", one.label.strip())
    return ("none",)


def _conditions(one: Interpretation) -> list[tuple[str, tuple[str, ...]]]:
    """Family and values as text, of each condition of the rule's first term.

    None where there is no rule, or where it holds poorly or was not seen on held-out prompts.
    """
    rule = one.rule
    if rule is None:
        return []
    try:
        score = rule.get("held_out", {"average_precision": 1.0})["average_precision"]
        if score is None or score < CLEAR:
            return []
        terms: Sequence[Any] = rule["terms"]
        first = terms[0] if terms else ()
        return [(str(c["family"]), tuple(map(str, c.get("texts", c["values"])))) for c in first]
    except (AttributeError, KeyError, TypeError) as error:
        raise PieFastError(
            f"the rule of {one.feature} is {dict(rule)!r}; it must have terms of conditions, each "
            "with family and values, and average_precision in held_out"
        ) from error


def _by_theme(features: Sequence[_Told]) -> list[list[_Told]]:
    """Features of one theme together, strongest first; themes strongest first."""
    themes: dict[tuple[Any, ...], list[_Told]] = defaultdict(list)
    for feature in sorted(features, key=lambda f: (-f.effect, f.layer, str(f.one.feature))):
        themes[feature.theme].append(feature)

    def order(same: list[_Told]) -> tuple[Any, ...]:
        return -_effect(same), -len(same), tuple(map(str, same[0].theme))

    return sorted(themes.values(), key=order)


def _story(group: Sequence[_Told], total: float) -> LayerStory:
    statements = tuple(
        Statement(
            _phrase(same), tuple(str(f.one.feature) for f in same), _share(_effect(same), total)
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


def _phrase(same: Sequence[_Told]) -> str:
    """What features of one theme do."""
    family, *of = same[0].theme
    if family == "none":
        return _NO_RULE
    if family == "label":
        return f"are labelled {_cut(of[0])}"
    if family == "other":
        return f"go by {' and '.join(of)}"
    weights: dict[str, float] = defaultdict(float)
    for feature in same:
        for name, values in _conditions(feature.one):
            for value in values if name == family else ():
                weights[value] += feature.effect
    listed = sorted(weights, key=lambda value: -weights[value])  # equals stay as the rules say
    if family in ("role", "previous_role"):
        listed = [_role(value) for value in listed]
    role = _role(f"the {of[0]}" if of[0].islower() else of[0]) if family == EARLIER else ""
    return _PHRASES[family].format(values=_listed(listed), role=role)


def _listed(values: Sequence[str]) -> str:
    if len(values) > _SPELLED:
        return f"{', '.join(values[:_SPELLED])} and {len(values) - _SPELLED} more"
    return " or ".join(values)


def _role(name: str) -> str:
    """A role with its meaning, where its name says little."""
    gloss = ROLES.get(name)
    return name if gloss is None else f"{name} ({gloss})"


def _cut(label: str) -> str:
    return f'"{label if len(label) <= _QUOTED else label[: _QUOTED - 3] + "..."}"'


def _features(n: int) -> str:
    return "1 feature" if n == 1 else f"{n} features"


def _effect(features: Iterable[_Told]) -> float:
    return math.fsum(feature.effect for feature in features)


def _share(effect: float, total: float) -> float:
    return effect / total if total else 0.0
