"""A run's features as tables: every form holds the same rows."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from pie_fast.errors import PieFastError
from pie_fast.exchange import feature_rows, write_table
from pie_fast.interpretation import Interpretation, Measure, TokenEffect
from pie_fast.types import FeatureId


def result() -> dict[str, Any]:
    told = Interpretation(
        FeatureId(1, 2),
        -0.5,
        'fires on "a", or\nnot',
        1,
        promoted=(TokenEffect(" Mary", 4, 0.5), TokenEffect('"', 5, 0.25)),
        quality={"detection_rule": Measure(0.75), "clarity_llm": Measure(None, why="no rater")},
    )
    return {
        "features": [
            {"layer": 0, "index": 9, "score": 2.0, "rank": 0, "stability": 1.0},
            {"layer": 1, "index": 2, "score": 1.0, "rank": 1, "stability": 0.5},
        ],
        "interpretations": [told.to_dict()],
        "ablation": {"mean_effect": [0.1, -0.2], "mean_abs_effect": [0.3, 0.4]},
    }


def test_rows_hold_what_is_known_of_each_feature() -> None:
    first, second = feature_rows(result())
    assert list(first) == list(second)
    assert second["feature"] == "L1:2" and second["rank"] == 1 and second["stability"] == 0.5
    assert second["fap_score"] == -0.5 and second["label"].startswith("fires on")
    assert second["promoted"] == '" Mary" "\\""'
    assert second["detection_rule"] == 0.75 and second["clarity_llm"] is None
    assert second["ablation"] == -0.2 and second["ablation_abs"] == 0.4
    assert first["feature"] == "L0:9" and first["label"] is None and first["promoted"] == ""
    assert first["detection_rule"] is None


def test_nodes_share_their_features_interpretation() -> None:
    of = result()
    of["features"] = [
        {"layer": 1, "index": 2, "slot": slot, "score": 1.0, "rank": rank}
        for rank, slot in enumerate(["S2", "END"])
    ]
    of["ablation"] = None
    rows = feature_rows(of)
    assert [row["slot"] for row in rows] == ["S2", "END"]
    assert rows[0]["label"] == rows[1]["label"] and "ablation" not in rows[0]


def test_every_form_holds_the_same_rows(tmp_path: Path) -> None:
    rows = feature_rows(result())
    lines = write_table(tmp_path / "a.jsonl", rows).read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    with write_table(tmp_path / "a.csv", rows).open(newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    parquet = pytest.importorskip("pyarrow.parquet", reason="parquet needs pyarrow")
    path = write_table(tmp_path / "a.parquet", rows)
    assert parquet.read_table(path).to_pylist() == rows
    assert (
        write_table(tmp_path / "b", rows, "csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    )


def test_no_rows_are_a_table(tmp_path: Path) -> None:
    rows = feature_rows({"features": []})
    assert rows == []
    assert write_table(tmp_path / "a.jsonl", rows).read_bytes() == b""
    assert write_table(tmp_path / "a.csv", rows).read_bytes() == b"\n"


@pytest.mark.parametrize(
    ("rows", "name", "message"),
    [
        ([], "a.txt", "form 'txt', must be one of csv, jsonl, parquet"),
        ([], "a", "form '', must be one of"),
        ([{"a": 1}, {"b": 1}], "a.csv", r"row 1 has columns \['b'\], must be \['a'\]"),
        ([{"a": math.nan}], "a.csv", "row 0: a is nan"),
        ([{"a": [1]}], "a.csv", r"row 0: a is \[1\]"),
    ],
)
def test_what_is_no_table_is_refused(
    tmp_path: Path, rows: list[Any], name: str, message: str
) -> None:
    with pytest.raises(PieFastError, match=message):
        write_table(tmp_path / name, rows)
    assert list(tmp_path.iterdir()) == []


def test_results_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PieFastError, match="field 'features' is missing"):
        feature_rows({})
    of = result()
    of["ablation"]["mean_effect"] = [0.1]
    with pytest.raises(
        PieFastError, match=r"'mean_effect' is \[0.1\], must be a list of 2 numbers"
    ):
        feature_rows(of)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": "a"}, "run: field 'features' is 'a', must be a list of objects"),
        ({"features": [{"layer": 1}]}, "run, features 0: field 'index' is missing"),
        ({"interpretations": "a"}, "run: field 'interpretations' is 'a'"),
        ({"interpretations": [{"layer": "0"}]}, "interpretations 0: field 'layer' is '0'"),
        ({"promoted": [{}]}, "interpretations 0, promoted 0: field 'token' is missing"),
        ({"quality": {"m": 1}}, "interpretations 0, quality: field 'm' is 1, must be an object"),
        ({"quality": {"m": {"value": "b"}}}, "quality, m: field 'value' is 'b'"),
        ({"ablation": "a"}, "run: field 'ablation' is 'a', must be an object"),
        ({"ablation": {}}, "run, ablation: field 'mean_effect' is missing"),
    ],
)
def test_a_damaged_field_is_named(change: dict[str, Any], message: str) -> None:
    of = result()
    target = of if of.keys() & change.keys() else of["interpretations"][0]
    target.update(change)
    with pytest.raises(PieFastError, match=message):
        feature_rows(of, where="run")


def test_parquet_without_pyarrow_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PieFastError, match="parquet needs pyarrow"):
        write_table(tmp_path / "a.parquet", [{"a": 1}])
