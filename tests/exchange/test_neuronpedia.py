"""Labels from Neuronpedia: every form its files have, and what is not of that form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pie_fast.errors import DumpError
from pie_fast.exchange import read_neuronpedia
from pie_fast.interpretation import Measure


def entry(**changes: Any) -> dict[str, Any]:
    """One explanation with the fields that the exports have."""
    return {
        "id": "cm0",
        "modelId": "gemma-2-2b",
        "layer": "5-clt-hp",
        "index": "204",
        "embedding": "[0.0, 1.0]",
        "description": " time-related phrases",
        "authorId": "np",
        "scoreV1": 0,
        "umap_x": 0,
        "typeName": "np_max-act-logits",
        "explanationModelName": "gpt-4o-mini",
        **changes,
    }


def jsonl(*entries: Any) -> str:
    return "".join(json.dumps(one) + "\n" for one in entries)


FEATURE = {
    "modelId": "gemma-2-2b",
    "layer": "5-clt-hp",
    "index": "204",
    "pos_str": [" Monday"],
    "explanations": [{"description": "time-related phrases", "typeName": None}],
}


def test_an_export_is_read(tmp_path: Path) -> None:
    path = tmp_path / "batch-0.jsonl.gz"
    score = {"explanationScoreTypeName": "eleuther_fuzz", "value": 0.75, "jsonDetails": "[]"}
    path.write_bytes(gzip.compress(jsonl(entry(scores=[score]), entry(index=3)).encode()))
    first, second = read_neuronpedia(path)
    assert (first.layer, first.index, second.index) == (5, 204, 3)
    assert (first.model, first.clt) == ("gemma-2-2b", "clt-hp")
    assert first.label == "time-related phrases"
    assert first.explainer == "neuronpedia:gpt-4o-mini/np_max-act-logits"
    assert first.quality == {"neuronpedia_eleuther_fuzz_llm": Measure(0.75)}


@pytest.mark.parametrize(
    "text",
    [
        jsonl(entry()),
        json.dumps([entry()]),
        json.dumps([entry()], indent=1),
        json.dumps(entry(), indent=1),
        jsonl(FEATURE),
        json.dumps(FEATURE, indent=2),
        json.dumps([FEATURE]),
    ],
)
def test_every_form_gives_the_same_feature(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    (one,) = read_neuronpedia(path)
    assert (one.layer, one.index, one.model, one.clt) == (5, 204, "gemma-2-2b", "clt-hp")
    assert one.label == "time-related phrases"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("20-gemmascope-res-16k", (20, "gemmascope-res-16k")),
        ("6-res_scefr-ajt", (6, "res_scefr-ajt")),
        ("7", (7, "")),
    ],
)
def test_a_source_is_a_layer_and_a_set(
    tmp_path: Path, layer: str, expected: tuple[int, str]
) -> None:
    (tmp_path / "a").write_text(jsonl(entry(layer=layer)))
    (one,) = read_neuronpedia(tmp_path / "a")
    assert (one.layer, one.clt) == expected


def test_of_one_explainer_the_last_counts(tmp_path: Path) -> None:
    other = entry(description="by another", explanationModelName="gpt-4o-mini", typeName=None)
    lines = [entry(description="first"), other, entry(description="last"), entry(description=" ")]
    (tmp_path / "a").write_text(jsonl(*lines))
    found = {one.explainer: one.label for one in read_neuronpedia(tmp_path / "a")}
    assert found == {
        "neuronpedia:gpt-4o-mini/np_max-act-logits": "last",
        "neuronpedia:gpt-4o-mini": "by another",
    }


def test_a_score_without_value_says_so(tmp_path: Path) -> None:
    score = {"explanationScoreTypeName": "recall_alt", "value": None}
    (tmp_path / "a").write_text(jsonl(entry(scores=[score])))
    (one,) = read_neuronpedia(tmp_path / "a")
    assert one.quality["neuronpedia_recall_alt_llm"].value is None
    assert one.quality["neuronpedia_recall_alt_llm"].why


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modelId", None),
        ("modelId", ""),
        ("layer", "clt-hp"),
        ("layer", 5),
        ("layer", "-5-clt"),
        ("layer", "٥-clt"),
        ("layer", "5-"),
        ("index", "-1"),
        ("index", "2.0"),
        ("index", 1.5),
        ("index", True),
        ("index", 2**60),
        ("index", None),
        ("description", None),
        ("description", ["a"]),
        ("scores", [1]),
        ("scores", [{"value": 1}]),
        ("scores", [{"explanationScoreTypeName": "fuzz", "value": "1"}]),
    ],
)
def test_what_is_needed_and_wrong_is_named(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl(entry(), entry(**{field: value})))
    with pytest.raises(DumpError, match=f"line 2.*{field}"):
        read_neuronpedia(path)


@pytest.mark.parametrize("field", ["modelId", "layer", "index", "description"])
def test_what_is_missing_is_named(tmp_path: Path, field: str) -> None:
    one = entry()
    del one[field]
    (tmp_path / "a").write_text(json.dumps([entry(index=1), one]))
    with pytest.raises(DumpError, match=f"entry 1: field '{field}' is missing"):
        read_neuronpedia(tmp_path / "a")


def test_an_empty_file_has_no_labels(tmp_path: Path) -> None:
    for text in ("", "\n", "[]"):
        (tmp_path / "a").write_text(text)
        assert read_neuronpedia(tmp_path / "a") == []
    (tmp_path / "a").write_text("[1]")
    with pytest.raises(DumpError, match="entry 0: expected an object, found 1"):
        read_neuronpedia(tmp_path / "a")
