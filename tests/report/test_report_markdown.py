"""The report as Markdown, and its figures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_world
from pie_fast.errors import PieFastError
from pie_fast.report import write_report
from pie_fast.report.markdown import code, escaped
from pie_fast.report.narrative import narrative_parts
from pie_fast.types import FeatureId


def test_markdown_has_the_facts_and_its_figures(tmp_path: Path) -> None:
    run = report_world.write_run(tmp_path / "run", 12)
    text = write_report(run, tmp_path / "my report.md", format="md").read_text()
    links = re.findall(r"\]\((.*?)\)", text)
    assert links == [f"my%20report_figures/{name}.png" for name in ("curves", "circuit", "synergy")]
    for name in ("curves", "circuit", "synergy"):
        assert (tmp_path / "my report_figures" / f"{name}.png").read_bytes()[1:4] == b"PNG"
    assert text.startswith("# \\<b\\>ioi\\</b\\>\n")
    assert "| fidelity | 0.800 \\[0.700, 0.900\\] |" in text
    assert len(re.findall(r"^### \d+\. L\d:\d+$", text, re.M)) == 12
    assert (
        "| clarity | 0.90 | 0.90 |" in text
        and "| detection | no positions with the concept were made |" in text
    )
    outside = re.sub(r"(`+).*?\1", "", text)
    assert "<script>" not in outside and "\\<script\\>" in outside
    assert "`pie-fast discover" in text
    assert "| clarity by rule | 0.61 | 11 of 12 |" in text
    assert "| purity by language model | – | 0 of 12 |" in text
    assert "| corpus | 6,000 | 0 | 2.50 |" in text
    assert "from 6,000 texts with 70,000 positions that count (ioi 6,000)" in text.replace("\\", "")


def test_figures_name_their_features_and_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: dict[str, Figure] = {}

    def drawing(self: Figure, file: IO[bytes], **_: object) -> None:
        drawn[Path(file.name).name.split(".")[1]] = self  # .NAME.png.PID.tmp

    monkeypatch.setattr(Figure, "savefig", drawing)
    run = report_world.write_run(tmp_path / "run", 12)
    write_report(run, tmp_path / "report.md", format="md")
    square, _, bar, _ = drawn["synergy"].axes
    names = {str(feature) for feature in read_features(run)}
    assert {label.get_text() for label in square.get_xticklabels()} == names
    said = [text.get_text() for text in bar.texts]
    assert said == ["back each other up (either does) →", "← need each other"]
    legend = drawn["circuit"].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][:3] == ["raises", "lowers", "does both"]


def read_features(run: Path) -> list[FeatureId]:
    rows = json.loads((run / "result.json").read_text())["features"]
    return [FeatureId(row["layer"], row["index"]) for row in rows]


def test_markdown_of_result_json_alone(tmp_path: Path) -> None:
    run = report_world.write_run(tmp_path / "run", 5, full=False)
    text = write_report(run, tmp_path / "report.md", format="md").read_text()
    assert "## Synergy" not in text and "## Narrative" not in text
    assert not (tmp_path / "report_figures" / "synergy.png").exists()


def test_without_matplotlib_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = report_world.write_run(tmp_path / "run", 5, full=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PieFastError, match=r"pip install 'pie-fast\[report\]'"):
        write_report(run, tmp_path / "report.md", format="md")
    assert not (tmp_path / "report.md").exists()


@given(st.text("`a ", min_size=1, max_size=9))
def test_nothing_ends_a_code_span_but_its_end(text: str) -> None:
    span = code(text)
    fence = re.match("`+", span)
    assert fence is not None
    inner = span[len(fence[0]) : -len(fence[0])]
    assert text in inner
    assert fence[0] not in re.findall("`+", inner)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("a|b <c> *d* _e_", r"a\|b \<c\> \*d\* \_e\_"),
        ("- one", r"\- one"),
        ("---", r"\---"),
        ("-0.5", "-0.5"),
        ("1. one", "1\u2060. one"),
        ("1.5", "1.5"),
        ("two\nlines", "two lines"),
    ],
)
def test_text_begins_no_list_and_marks_nothing(given_text: str, expected: str) -> None:
    assert escaped(given_text) == expected


def test_a_narrative_is_told_once() -> None:
    statement = {"text": "mark S2", "features": ["L0:1", "L0:4"], "share": 0.125}
    layers = [
        {"first": 0, "last": 0, "text": "Layer 0 does a.", "statements": [statement]},
        {"first": 1, "last": 3, "text": "b\n\nc"},
    ]
    told = [
        ("", ["Layer 0 does a."], ["mark S2 (12%): L0:1, L0:4"]),
        ("Layers 1 to 3", ["b", "c"], []),
    ]
    assert narrative_parts(None) == narrative_parts({"text": ""}) == []
    assert narrative_parts({"text": "Layer 0 does a.\nb\nc", "layers": layers}) == told
    whole = ("", ["Other words."], [])
    assert narrative_parts({"text": "Other words.", "layers": layers}) == [whole, *told]
    llm = {"summary": "Other words.", "text": "...", "layers": layers, "narrator": "openai:m"}
    assert narrative_parts(llm) == [whole, *told, ("", ["Told by openai:m."], [])]
