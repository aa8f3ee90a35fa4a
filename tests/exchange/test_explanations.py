"""Explanations as JSON Lines: what is written comes back, and what is not ours is refused."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_fast.errors import DumpError, PieFastError
from pie_fast.exchange import (
    Explanation,
    apply_labels,
    read_explanations,
    write_explanations,
)
from pie_fast.interpretation import Interpretation, Measure
from pie_fast.types import FeatureId

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**6)
measures = st.builds(Measure, numbers, numbers, counts, counts, st.none() | words)
features = st.builds(FeatureId, st.integers(0, 99), st.integers(0, 10**7))
conditions = st.fixed_dictionaries({"family": words, "values": st.lists(words | st.integers())})
rules = st.none() | st.fixed_dictionaries({"text": words, "conditions": st.lists(conditions)})
interpretations = st.builds(
    Interpretation,
    features,
    st.floats(-1, 1),
    label=words,
    layer=st.none(),
    explainer=st.sampled_from(["rules", "openai:m"]),
    rule=rules,
    quality=st.dictionaries(words, measures, max_size=3),
).map(lambda one: replace(one, layer=one.feature.layer))


def line(**changes: Any) -> dict[str, Any]:
    one = Explanation(
        2, 7, "fires on names", "rules", "gpt2", "clt", None, {"a_rule": Measure(0.5)}
    )
    return {**one.to_dict(), **changes}


def write(path: Path, *lines: Any) -> Path:
    path.write_text(
        "".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in lines)
    )
    return path


@given(st.lists(interpretations, max_size=4, unique_by=lambda one: (one.feature, one.explainer)))
def test_what_is_written_is_read(tmp_path_factory: Any, found: list[Interpretation]) -> None:
    path = tmp_path_factory.mktemp("x") / "labels.jsonl"
    assert write_explanations(path, found, model="m", clt="c") == len(found)
    again = read_explanations(path)
    assert [(e.layer, e.index) for e in again] == [
        (one.feature.layer, one.feature.index) for one in found
    ]
    for theirs, ours in zip(again, found, strict=True):
        assert (theirs.label, theirs.explainer) == (ours.label, ours.explainer)
        assert (theirs.model, theirs.clt) == ("m", "c")
        assert theirs.quality == ours.quality
        assert theirs.rule == ours.rule


def test_an_interpretation_and_its_dictionary_are_written_alike(tmp_path: Path) -> None:
    one = Interpretation(FeatureId(1, 2), 0.5, "x", 1, quality={"detection_rule": Measure(0.9)})
    write_explanations(tmp_path / "a", [one], model="m", clt="c")
    write_explanations(tmp_path / "b", [one.to_dict()], model="m", clt="c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_joined_or_gzipped_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a", line(), "\n", line(explainer="openai:m"))
    zipped = tmp_path / "a.jsonl.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert read_explanations(zipped) == read_explanations(path)
    assert [one.explainer for one in read_explanations(path)] == ["rules", "openai:m"]


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("format", "x", "'pie_fast/explanation'"),
        ("version", 2, "must be 1"),
        ("version", True, "must be 1"),
        ("layer", -1, "an integer from 0"),
        ("layer", True, "an integer from 0"),
        ("index", 1.0, "an integer from 0"),
        ("index", 2**60, "an integer from 0"),
        ("index", "7", "an integer from 0"),
        ("label", 3, "text"),
        ("label", "\ud800", "text"),
        ("explainer", " ", "not empty"),
        ("rule", [], "an object or null"),
        ("quality", [], "an object"),
        ("quality", {"a": 0.5}, "an object"),
        ("quality", {"a": {"value": "high"}}, "a finite number or null"),
        ("quality", {"a": {"value": 10**400}}, "a finite number or null"),
        ("quality", {"a": {"n_positive": -1}}, "an integer from 0"),
        ("quality", {"a": {"auroc": 1}}, "unknown field 'auroc'"),
        ("lable", "x", "unknown field 'lable'"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, field: str, value: object, valid: str) -> None:
    path = write(tmp_path / "a.jsonl", line(), line(**{field: value}))
    with pytest.raises(DumpError, match="line 2") as caught:
        read_explanations(path)
    message = str(caught.value)
    assert str(path) in message and field in message and valid in message


@pytest.mark.parametrize("field", ["format", "version", "model", "layer", "label", "explainer"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    one = line()
    del one[field]
    with pytest.raises(DumpError, match=f"line 1: field '{field}' is missing"):
        read_explanations(write(tmp_path / "a", one))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]\n", r"line 1: expected an object, found \[1\]"),
        ("{\n", "line 1: not JSON"),
        ('{"quality": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"layer": ' + "1" * 5000 + "}", "not JSON that can be read"),
    ],
)
def test_what_is_no_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DumpError, match=message):
        read_explanations(write(tmp_path / "a", text))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match=r"cannot read .*none: No such file"):
        read_explanations(tmp_path / "none")
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    with pytest.raises(DumpError, match="not UTF-8 text: byte 0"):
        read_explanations(tmp_path / "a")
    (tmp_path / "b").write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    with pytest.raises(DumpError, match="not a whole gzip file"):
        read_explanations(tmp_path / "b")


def test_a_small_file_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pie_fast.exchange.checked.LARGEST", 1000)
    (tmp_path / "a").write_bytes(gzip.compress(b" " * 1001))
    with pytest.raises(DumpError, match="more than 1000 bytes"):
        read_explanations(tmp_path / "a")


def test_a_label_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", line(), line(layer=3), line(label="other words"))
    with pytest.raises(DumpError, match=r"line 3: L2:7 by 'rules' stands in .*line 1 already"):
        read_explanations(path)
    one = Interpretation(FeatureId(1, 2), 0.5, "x")
    with pytest.raises(PieFastError, match="L1:2 is explained twice by 'rules'"):
        write_explanations(tmp_path / "b", [one, one], model="m", clt="c")
    assert not (tmp_path / "b").exists()


def test_what_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    bad = Interpretation(FeatureId(1, 2), 0.5, "x", quality={"a_rule": Measure(math.nan)})
    with pytest.raises(PieFastError, match="a_rule: field 'value' is nan"):
        write_explanations(tmp_path / "a", [bad], model="m", clt="c")
    with pytest.raises(PieFastError, match=r"'\(1, 2\)' is not a feature"):
        write_explanations(tmp_path / "a", [Interpretation((1, 2), 0.5)], model="m", clt="c")
    assert not (tmp_path / "a").exists()


OURS = Interpretation(
    FeatureId(2, 7),
    0.5,
    "ours",
    2,
    label_quality=0.8,
    rule={"text": "ours"},
    quality={"detection_rule": Measure(0.9), "clarity_llm": Measure(0.7)},
)
OTHER = Interpretation(FeatureId(0, 0), 0.1, "other", 0)


def test_labels_of_others_are_put_on_ours() -> None:
    theirs = Explanation(2, 7, "theirs", "neuronpedia:m", quality={"fuzz_llm": Measure(0.6)})
    changed, same = apply_labels([OURS, OTHER], [theirs, replace(theirs, index=9)])
    assert same is OTHER
    assert (changed.label, changed.explainer) == ("theirs", "neuronpedia:m")
    assert changed.rule == OURS.rule and changed.label_quality is None
    # what a rule judged stays with our rule; what was said of our words goes
    assert changed.quality == {"fuzz_llm": Measure(0.6), "detection_rule": Measure(0.9)}
    assert changed.fap_score == OURS.fap_score


def test_a_label_with_a_rule_brings_its_measures() -> None:
    rule = {"text": "theirs"}
    theirs = Explanation(2, 7, "t", "rules", rule=rule, quality={"purity_rule": Measure(0.1)})
    (changed,) = apply_labels([OURS], [theirs])
    assert changed.rule == rule and changed.quality == {"purity_rule": Measure(0.1)}


def test_labels_that_do_not_fit_are_refused() -> None:
    a = Explanation(2, 7, "a", "rules", "gpt2", "clt")
    b = replace(a, explainer="openai:m")
    with pytest.raises(PieFastError, match=r"L2:7 has 2 labels, by 'openai:m', 'rules'; name one"):
        apply_labels([OURS], [a, b])
    assert apply_labels([OURS], [a, b], explainer="openai:m")[0].label == "a"
    with pytest.raises(PieFastError, match="none of the 1 labels is of one of these 1 features"):
        apply_labels([OTHER], [a])
    with pytest.raises(PieFastError, match="none of the 0 labels by 'x'"):
        apply_labels([OURS], [a], explainer="x")
    with pytest.raises(PieFastError, match="of model 'gpt2', not of 'gemma'"):
        apply_labels([OURS], [a], model="gemma")
    with pytest.raises(PieFastError, match="of clt 'clt', not of 'other'"):
        apply_labels([OURS], [a], clt="other")
    assert apply_labels([], [a]) == []
