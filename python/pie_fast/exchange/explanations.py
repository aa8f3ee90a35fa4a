"""Explanations as JSON Lines: what a feature does, in words, and how good the words are.

One line a feature, each complete in itself, so that files can be joined, sorted and searched by
line:

    {"format": "pie_fast/explanation", "version": 1, "model": "gpt2", "clt": "my-clt",
     "layer": 3, "index": 17, "label": "fires on ...", "explainer": "rules",
     "rule": {...} or null, "quality": {"detection_rule": {"value": 0.9, ...}}}

A feature may have a label of each of several explainers, but only one of each: two lines of the
same model, CLT, feature and explainer are refused, because nothing says which one is meant.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pie_fast.errors import DumpError, PieFastError
from pie_fast.exchange.checked import Record, first_double, is_integer, read_lines
from pie_fast.interpretation import Interpretation, Measure, one_line
from pie_fast.storage import replacing
from pie_fast.types import FeatureId

FORMAT = "pie_fast/explanation"
VERSION = 1

_NAMES = ("format", "version", "model", "clt", "layer", "index", "label", "explainer")
_FIELDS = (*_NAMES, "rule", "quality")
_MEASURE_FIELDS = ("value", "signed", "n_positive", "n_negative", "why")

#: ends the names of measures that a rule judged
_BY_RULE = "_rule"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A label of one feature, by one explainer.

    Attributes:
        layer: The layer that the feature reads.
        index: Its index within the layer.
        label: The words.
        explainer: What wrote them.
        model: The language model's name; empty where unknown.
        clt: The dictionary's name; empty where unknown.
        rule: The rule in plain values; None where there is none.
        quality: Measures by name, as of an `Interpretation`.
    """

    layer: int
    index: int
    label: str
    explainer: str
    model: str = ""
    clt: str = ""
    rule: Mapping[str, Any] | None = None
    quality: Mapping[str, Measure] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """What a file may hold once: model, CLT, layer, index and explainer."""
        return self.model, self.clt, self.layer, self.index, self.explainer

    @classmethod
    def of(
        cls, interpretation: Interpretation | Mapping[str, Any], *, model: str, clt: str
    ) -> Explanation:
        """The explanation in an interpretation, or in its `to_dict` as a run holds it.

        Raises:
            PieFastError: Its feature is not of a layer and index, or what it says is not valid.
        """
        plain = interpretation if isinstance(interpretation, Mapping) else interpretation.to_dict()
        feature = FeatureId.parse(str(plain.get("feature")))
        # runs of 0.1 name no explainer: nothing but rules wrote labels then
        fields = {"explainer": "rules", **plain, **asdict(feature)}
        line = Record(f"interpretation of {feature}", fields)
        return _parsed(line, model=model, clt=clt)

    def to_dict(self) -> dict[str, Any]:
        """One line of the file, as plain values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "clt": self.clt,
            "layer": self.layer,
            "index": self.index,
            "label": self.label,
            "explainer": self.explainer,
            "rule": None if self.rule is None else dict(self.rule),
            "quality": {name: asdict(measure) for name, measure in self.quality.items()},
        }


def write_explanations(
    path: str | Path,
    interpretations: Iterable[Interpretation | Mapping[str, Any]],
    *,
    model: str,
    clt: str,
) -> int:
    """Write the labels of a circuit's features; the file appears whole or not at all.

    Args:
        path: The file; replaced if it exists.
        interpretations: Or their `to_dict`, as a run's `result.json` holds them.
        model: The language model's name.
        clt: The transcoder's name.

    Returns:
        How many lines were written.

    Raises:
        PieFastError: A feature that is not of a layer and index, one that comes twice, or a
            number that is not finite.
    """
    found = [Explanation.of(one, model=model, clt=clt) for one in interpretations]
    double = first_double([one.key for one in found])
    if double is not None:
        one = found[double[0]]
        raise PieFastError(
            f"feature L{one.layer}:{one.index} is explained twice by {one.explainer!r}; "
            "a file holds one label of each explainer"
        )
    lines = [json.dumps(one.to_dict(), ensure_ascii=False, allow_nan=False) for one in found]
    with replacing(Path(path)) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    return len(lines)


def read_explanations(path: str | Path) -> list[Explanation]:
    """Read explanations, in the order of the file.

    Args:
        path: The file, gzipped or not.

    Raises:
        DumpError: The file is not what the format promises, or holds a label twice; the message
            names file, line, field, value and the valid range.
    """
    lines = read_lines(path)
    found = [_line(line) for line in lines]
    double = first_double([one.key for one in found])
    if double is not None:
        first, second = (lines[place].where for place in double)
        one = found[double[0]]
        raise DumpError(
            f"{second}: L{one.layer}:{one.index} by {one.explainer!r} stands in {first} already; "
            "a file holds one label of each feature and explainer"
        )
    return found


def apply_labels(
    interpretations: Sequence[Interpretation],
    records: Iterable[Explanation],
    *,
    explainer: str | None = None,
    model: str | None = None,
    clt: str | None = None,
) -> list[Interpretation]:
    """Put labels of others on features of ours; features without one stay as they are.

    What was measured of the old words does not hold for the new ones and goes; what was measured
    of our rule stays with the rule, unless the record brings its own.

    Args:
        interpretations: Of our features.
        records: Labels, of any features.
        explainer: Only its labels are used; needed where a feature has labels of several.
        model: Refuse labels that name another language model.
        clt: Refuse labels that name another dictionary.

    Returns:
        Interpretations in the same order.

    Raises:
        PieFastError: A feature has several labels that fit, a label is of another model or
            dictionary, or no label fits any feature.
    """
    chosen = [r for r in records if explainer is None or r.explainer == explainer]
    labels: dict[tuple[int, int], list[Explanation]] = defaultdict(list)
    for label in chosen:
        _check_identity(label, model, clt)
        labels[label.layer, label.index].append(label)
    result = []
    for one in interpretations:
        fitting = labels.get(_place(one.feature), [])
        if len(fitting) > 1:
            names = ", ".join(sorted(repr(label.explainer) for label in fitting))
            raise PieFastError(f"{one.feature} has {len(fitting)} labels, by {names}; name one")
        result.append(_relabelled(one, fitting[0]) if fitting else one)
    if interpretations and not any(_place(one.feature) in labels for one in interpretations):
        whose = "" if explainer is None else f" by {explainer!r}"
        raise PieFastError(
            f"none of the {len(chosen)} labels{whose} is of one of these "
            f"{len(interpretations)} features"
        )
    return result


def _check_identity(label: Explanation, model: str | None, clt: str | None) -> None:
    for name, ours, theirs in (("model", model, label.model), ("clt", clt, label.clt)):
        if ours and theirs and ours != theirs:
            raise PieFastError(
                f"the label of L{label.layer}:{label.index} is of {name} {theirs!r}, "
                f"not of {ours!r}"
            )


def _place(feature: Any) -> tuple[int, int]:
    return getattr(feature, "layer", -1), getattr(feature, "index", -1)


def _relabelled(one: Interpretation, label: Explanation) -> Interpretation:
    if label.rule is not None:
        return replace(
            one,
            label=one_line(label.label),
            explainer=one_line(label.explainer),
            rule=label.rule,
            label_quality=None,
            quality=dict(label.quality),
        )
    of_rule = {name: value for name, value in one.quality.items() if name.endswith(_BY_RULE)}
    return replace(
        one,
        label=one_line(label.label),
        explainer=one_line(label.explainer),
        label_quality=None,
        quality={**label.quality, **of_rule},
    )


def _line(line: Record) -> Explanation:
    if line.fields.get("format") != FORMAT:
        line.refuse("format", repr(FORMAT))
    version = line.fields.get("version")
    if not is_integer(version) or version != VERSION:
        line.refuse("version", str(VERSION))
    for name in line.fields:
        if name not in _FIELDS:
            raise DumpError(f"{line.where}: unknown field {name!r}; known: {', '.join(_FIELDS)}")
    return _parsed(line, model=line.text("model"), clt=line.text("clt"))


def _parsed(line: Record, *, model: str, clt: str) -> Explanation:
    rule = line.fields.get("rule")
    if rule is not None and not isinstance(rule, Mapping):
        line.refuse("rule", "an object or null")
    quality = line.mapping("quality")
    return Explanation(
        layer=line.integer("layer"),
        index=line.integer("index"),
        label=line.text("label"),
        explainer=line.text("explainer", empty=False),
        model=model,
        clt=clt,
        rule=rule,
        quality={name: _measure(quality, name) for name in quality.fields},
    )


def _measure(quality: Record, name: str) -> Measure:
    if not isinstance(quality.fields[name], Mapping):
        quality.refuse(name, "an object")
    one = quality.mapping(name)
    for key in one.fields:
        if key not in _MEASURE_FIELDS:
            known = ", ".join(_MEASURE_FIELDS)
            raise DumpError(f"{one.where}: unknown field {key!r}; known: {known}")
    why = one.fields.get("why")
    return Measure(
        value=one.number("value", optional=True),
        signed=one.number("signed", optional=True),
        n_positive=one.integer("n_positive") if "n_positive" in one.fields else 0,
        n_negative=one.integer("n_negative") if "n_negative" in one.fields else 0,
        why=None if why is None else one.text("why"),
    )
