"""What a feature does in one phrase, and what features of the same phrase have in common.

    clear    a rule of average precision >= .5 that covers >= 30% of the feature's strength: "marks
             S2", "carries which token was IO"
    weak     one as precise that covers less: "is strongest on S2"
    none     one that is less precise

Of the conditions of a rule's first term the one that says most makes the theme. What else the rules
of all features of a theme need is said besides it: "mark END where IO is a certain token".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pie_fast.errors import PieFastError
from pie_fast.interpret.rules.facts import EARLIER
from pie_fast.interpret.rules.sentence import ROLES
from pie_fast.interpretation import Interpretation

#: a rule whose average precision, held out, is below says too little to tell of
CLEAR = 0.5

#: one that covers less of the feature's strength, held out, says where it is strongest only
COVERED = 0.3

#: values of a theme that are spelled out, and characters of a label
_SPELLED, _QUOTED = 4, 80

#: family -> what a feature marks
_MARKED = {
    "role": "{values}",
    "repeat": "tokens seen earlier in the prompt",
    "repeated_pair": "tokens that complete a pair seen earlier",
    "after_repeat": "what follows a token seen earlier",
    "previous_role": "what follows {values}",
    "next_promoted": "what comes before a token that the same feature raises",
    "promoted": "tokens that the same feature raises",
    "class": "tokens that are {values}",
    "previous_pair": "what follows certain pairs of tokens ({values})",
    "previous_token": "what follows certain tokens ({values})",
    "token": "certain tokens ({values})",
    "last": "the end of the prompt",
    "position": "certain positions ({values})",
}

#: family -> what is said of it besides, where the rules of all features of a theme have it
_BESIDES = {
    "due": "where a certain token comes next by repetition",
    "repeat": "seen earlier in the prompt",
    "repeated_pair": "that completes a pair seen earlier",
    "after_repeat": "after a token seen earlier",
    "previous_role": "after {values}",
    "next_promoted": "before a token that the same feature raises",
    "promoted": "that the same feature raises",
    "class": "at {values}",
    "previous_pair": "after certain pairs of tokens ({values})",
    "previous_token": "after certain tokens ({values})",
    "token": "at certain tokens ({values})",
    "last": "at the end of the prompt",
    "position": "at certain positions ({values})",
}

#: the first of a rule's families in this order makes the theme; two are carried on, not marked
_ORDER = ("role", EARLIER, "due", *(family for family in _MARKED if family != "role"))

#: first part of the themes of rules that cover little
_WEAK = "strongest"


@dataclass(frozen=True, slots=True)
class Told:
    """A feature as a story needs it.

    Attributes:
        one: What is known of it.
        layer: Its layer.
        effect: Its |effect|.
        conditions: Of its rule's first term, family -> values as text; none where the rule is not
            precise.
        theme: What makes it equal to others: family and values. Values of tokens and positions
            are examples, so they do not count.
    """

    one: Interpretation
    layer: int
    effect: float
    conditions: Mapping[str, tuple[str, ...]]
    theme: tuple[str, ...]

    @classmethod
    def of(cls, one: Interpretation, layer: int, effect: float) -> Told:
        """Read its rule.

        Raises:
            PieFastError: The rule is of another form.
        """
        try:
            conditions, weak = _read(one.rule)
        except (AttributeError, KeyError, TypeError) as error:
            raise PieFastError(
                f"the rule of {one.feature} is {dict(one.rule or {})!r}; it must have terms of "
                "conditions, each with family and values, and average_precision and coverage in "
                "held_out"
            ) from error
        if conditions:
            theme = (*[_WEAK] * weak, *_family_theme(conditions))
        else:
            named = one.rule is None and one.label and one.explainer != "rules"
            theme = ("label", one.label.strip()) if named else ("none",)
        return cls(one, layer, effect, conditions, theme)


def phrase(same: Sequence[Told]) -> str:
    """What features of one theme do, beginning with a verb in the plural.

    Args:
        same: At least one; their theme is equal.
    """
    family, *of = same[0].theme
    weak = family == _WEAK
    if weak:
        family, *of = of
    if family == "none":
        return "follow no clear rule"
    if family == "label":
        return f"are labelled {_cut(of[0])}"
    if family == "other":
        return f"{'are strongest' if weak else 'go'} by {' and '.join(of)}"
    return " ".join([_main(same, family, of, weak), *_besides(same, family)])


def _read(rule: Mapping[str, Any] | None) -> tuple[dict[str, tuple[str, ...]], bool]:
    """The conditions of a rule's first term, and whether it covers little."""
    if rule is None:
        return {}, False
    held_out = rule.get("held_out", {"average_precision": 1.0, "coverage": 1.0})
    precise, covered = held_out["average_precision"], held_out["coverage"]
    if precise is None or precise < CLEAR:
        return {}, False
    first = rule["terms"][0] if rule["terms"] else ()
    found = {str(c["family"]): tuple(map(str, c.get("texts", c["values"]))) for c in first}
    return found, bool(found) and covered < COVERED


def _family_theme(conditions: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    roles = [name.removeprefix(EARLIER) for name in conditions if name.startswith(EARLIER)]
    for family in _ORDER:
        if family == EARLIER and roles:
            return (EARLIER, *sorted(roles))
        if family in conditions:
            apart = family in ("role", "previous_role", "class")
            return (family, *sorted(conditions[family])) if apart else (family,)
    return ("other", *sorted(conditions))  # of families that are not told of here


def _main(same: Sequence[Told], family: str, of: Sequence[str], weak: bool) -> str:
    """What the condition of the theme says."""
    if family == EARLIER:
        roles = [_role(_named(role)) for role in of]
        return f"are strongest {_certain(roles)}" if weak else f"carry {_carried(roles)}"
    if family == "due":
        next_one = "carry which token comes next by repetition"
        return f"are strongest {_BESIDES['due']}" if weak else next_one
    marked = _MARKED[family].format(values=_values(same, family))
    return f"are strongest on {marked}" if weak else f"mark {marked}"


def _besides(same: Sequence[Told], family: str) -> list[str]:
    """The conditions that all have, but for those of the theme itself."""
    every = [feature.conditions for feature in same]
    shared = [name for name in every[0] if all(name in one for one in every)]
    said = [
        text.format(values=_values(same, name))
        for name, text in _BESIDES.items()
        if name in shared and name != family
    ]
    roles = sorted(name.removeprefix(EARLIER) for name in shared if name.startswith(EARLIER))
    if roles and family != EARLIER:
        said.append(_certain([_named(role) for role in roles]))
    return sorted(said, key=lambda text: text.startswith("where"))


def _values(same: Sequence[Told], family: str) -> str:
    """The values that a family has in the rules of these features, strongest first."""
    weights: dict[str, float] = defaultdict(float)
    for feature in same:
        for value in feature.conditions[family]:
            weights[value] += feature.effect
    listed = sorted(weights, key=lambda value: -weights[value])  # equals stay as the rules say
    return _listed([_role(v) for v in listed] if family in ("role", "previous_role") else listed)


def _carried(roles: Sequence[str]) -> str:
    if len(roles) == 1:
        return f"which token was {roles[0]}"
    return f"which tokens were {' and '.join(roles)}"


def _certain(roles: Sequence[str]) -> str:
    if len(roles) == 1:
        return f"where {roles[0]} is a certain token"
    return f"where {' and '.join(roles)} are certain tokens"


def _named(role: str) -> str:
    """Roles are names (S2) or plain words of the template (place)."""
    return f"the {role}" if role.islower() else role


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
