"""Reports of runs: what stands in them, from which files, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import report_world
from pie_fast.errors import PieFastError
from pie_fast.report import write_report
from pie_fast.report.cards import Words, card_quality, feature_cards
from pie_fast.report.command import discover_command
from pie_fast.report.facts import setting_rows
from pie_fast.report.graph import graph_data, strongest_edges
from pie_fast.report.kept import Kept, kept_units
from pie_fast.report.run import Edges, read_run
from pie_fast.types import FeatureId


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_world.write_run(tmp_path_factory.mktemp("full") / "run", 20)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return report_world.write_run(tmp_path / "run", 8, full=False)


def data_of(page: str) -> dict[str, Any]:
    start = page.index('id="data">') + len('id="data">')
    found: dict[str, Any] = json.loads(page[start : page.index("</script>", start)])
    return found


def test_a_page_of_result_json_alone(bare: Path, tmp_path: Path) -> None:
    out = write_report(bare, tmp_path / "report.html")
    page = out.read_text()
    data = data_of(page)
    assert len(data["cards"]) == 8
    assert data["heat"] is None and data["graph"]["edges"] == []
    assert 'id="synergy"' not in page and 'id="narrative"' not in page
    assert "8 features, chosen by fap, keep a fidelity of 0.80" in " ".join(page.split())
    assert "0.800" in page and "0.700 – 0.900" in page


def test_a_page_of_everything(full: Path, tmp_path: Path) -> None:
    page = write_report(full, tmp_path / "report.html").read_text()
    data = data_of(page)
    features = json.loads((full / "result.json").read_text())["features"]
    assert [c["key"] for c in data["cards"]] == [f"L{f['layer']}:{f['index']}" for f in features]
    assert sorted(data["heat"]["features"]) == sorted(card["key"] for card in data["cards"])
    assert [square["name"] for square in data["heat"]["squares"]] == ["synergy", "redundancy"]
    assert data["graph"]["edges"]
    first = data["cards"][0]
    assert f'First <a href="#{first["key"]}">{first["key"]}</a> reads the names.' in page
    assert "Layers 0 to 2" in page and "clarity by rule" in page
    assert "below 0 they need each other" in page
    assert "Furthest above 0: they back each other up (either does)" in page
    assert "In short." in page and "Told by openai:m." in page
    assert "What the interpretation cost" in page and "6,000 texts" in page
    assert {title for title, _ in first["links"]} >= {"fed by", "feeds", "fires with"}
    assert first["n_contexts"] == 20 and len(first["contexts"]) == 17
    assert {node["place"] for node in data["graph"]["nodes"]} <= set(map(str, range(1, 12)))


@pytest.mark.parametrize("format", ["html", "md"])
def test_a_fidelity_of_0_tells_the_divergence(
    bare: Path, tmp_path: Path, format: Literal["html", "md"]
) -> None:
    path = bare / "result.json"
    result = json.loads(path.read_text())
    result["evaluation"] |= {"behavioral_fidelity": 0.0, "mean_kl": 4.36}
    result["evaluation"]["intervals"] = {"behavioral_fidelity": [0, 0], "mean_kl": [4, 5]}
    report_world.write(path, result)
    text = write_report(bare, tmp_path / "report", format=format).read_text().replace("\\", "")
    assert ", at its floor; mean KL 4.360 [4.000, 5.000] on 32" in " ".join(text.split())
    assert "95% between" not in text


def test_a_fixed_budget_has_no_settings_of_a_chosen_one(bare: Path) -> None:
    run = read_run(bare)
    settings = {**run.result["settings"], "target_fidelity": 0.9, "knee": False}
    fixed = replace(run, result={**run.result, "settings": settings})
    assert "target fidelity" not in dict(setting_rows(fixed))
    chosen = replace(run, result={**fixed.result, "budget_choice": {"budget": 8}})
    assert dict(setting_rows(chosen))["target fidelity"] == "0.9"


def test_text_of_the_run_never_becomes_markup(full: Path, tmp_path: Path) -> None:
    page = write_report(full, tmp_path / "report.html").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page and "<b>ioi" not in page
    assert page.count("</script>") == 3  # data, plotly, ours
    assert "\\u003cscript\\u003ealert(1)" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert "http-equiv" in page and "default-src 'none'" in page


def test_nodes_of_one_feature_share_its_card(bare: Path, tmp_path: Path) -> None:
    path = bare / "result.json"
    result = json.loads(path.read_text())
    first = result["features"][0]
    result |= {"unit": "node", "ablation": None, "n_features": 1}
    result["features"] = [
        {**first, "slot": slot, "rank": i} for i, slot in enumerate(("S1", "END"))
    ]
    report_world.write(path, result)
    data = data_of(write_report(bare, tmp_path / "report.html").read_text())
    assert [card["places"] for card in data["cards"]] == [["S1", "END"]]
    assert [node["place"] for node in data["graph"]["nodes"]] == ["S1", "END"]


def test_a_card_shows_its_tokens_and_activations(full: Path) -> None:
    run = read_run(full)
    words = Words()
    cards = feature_cards(run, kept_units(run), {}, words)
    shown = words.list()
    told = run.interpretations[cards[0]["key"]]
    for given, context in zip(told["contexts"][:8], cards[0]["contexts"], strict=False):
        assert len(context["words"]) == len(context["levels"]) <= 41
        assert all(-99 <= level <= 99 for level in context["levels"])
        token = shown[context["words"][context["peak"]]]
        assert token == report_world_visible(given["tokens"][given["peak"]])
    levels = [abs(level) for context in cards[0]["contexts"] for level in context["levels"]]
    assert max(levels) == 99
    assert shown[cards[0]["up"][2][0]] == "↵"


def report_world_visible(token: str) -> str:
    marks = {" ": "·", "\n": "↵", "\t": "⇥", "\u200b": "\\u{200b}"}
    return "".join(marks.get(character, character) for character in token)


def test_a_rule_and_a_model_are_never_one_number() -> None:
    one = {"value": 0.2, "signed": -0.2, "n_positive": 3, "n_negative": 4, "why": None}
    none = {"value": None, "signed": None, "why": "never holds"}
    rows = card_quality({"purity_rule": one, "purity_llm": none, "fuzzing_llm": one})
    assert rows == [
        {
            "name": "purity",
            "rule": {"value": -0.2, "n": [3, 4], "why": None},
            "llm": {"value": None, "n": [0, 0], "why": "never holds"},
        },
        {"name": "fuzzing", "llm": {"value": -0.2, "n": [3, 4], "why": None}},
    ]


def kept(*features: tuple[int, int]) -> list[Kept]:
    return [
        Kept(FeatureId(*one), rank, 1.0, None, 1.0, 1.0, "3") for rank, one in enumerate(features)
    ]


def test_an_edge_goes_from_the_feeding_feature_to_the_fed_one() -> None:
    effects = np.array([[0.0, 0, 0], [5, 0, 0], [0, -7, 0]])  # row fed by column
    edges = Edges(("L0:1", "L1:2", "L2:3"), effects, np.zeros(3))
    assert strongest_edges(kept((2, 3), (0, 1), (1, 2)), edges) == [[2, 0, -7.0], [1, 2, 5.0]]
    assert strongest_edges(kept((0, 1), (1, 2)), edges) == [[0, 1, 5.0]]  # one is not kept
    assert strongest_edges(kept((0, 1)), None) == []


def test_a_graph_of_nothing() -> None:
    assert graph_data([], None)["nodes"] == []


def test_the_command_is_one_that_the_command_line_takes(full: Path) -> None:
    import shlex

    import typer

    from pie_fast.cli import app

    result = json.loads((full / "result.json").read_text())
    result["settings"] |= {
        "behavior": "ioi", "rank_by": "abs", "pool_factor": 2.5, "n_selection": 8, "n_held_out": 4,
        "method_options": {"steps": 3}, "curve": False, "dtypes": {"model": "bfloat16"},
    }  # fmt: skip
    words = shlex.split(discover_command(result))
    assert words[:2] == ["pie-fast", "discover"]
    command: Any = typer.main.get_command(app)
    given = command.commands["discover"].make_context("discover", words[2:]).params
    assert (given["prompts"], given["budget"], given["curve"]) == (12, "20", False)
    assert given["pool_factor"] == 2.5 and list(given["method_option"]) == ["steps=3"]
    result |= {"budget_choice": {"target_fidelity": 0.8}}
    assert "--budget auto --target-fidelity 0.8" in discover_command(result)
    result["settings"]["knee"] = True
    assert "--budget knee" in discover_command(result)


def test_what_is_not_a_run_is_refused(bare: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    with pytest.raises(PieFastError, match=r"format is 'pdf', must be 'html' or 'md'"):
        write_report(bare, out, format="pdf")  # type: ignore[arg-type]
    with pytest.raises(PieFastError, match=r"nothing is not a run: it has no result.json"):
        write_report(tmp_path / "nothing", out)
    more = bare / "interpretation.json"
    for text, message in (
        ("{", "interpretation.json: not JSON"),
        ("[]", "interpretation.json: holds a list"),
        ("{}", "interpretation.json: interpretations is None, must be a list"),
        ('{"quality": NaN}', "NaN is not JSON; numbers must be finite"),
        (
            '{"interpretations": [{"label": "x"}]}',
            r"interpretation.json: interpretations\[0\]: no field 'feature'",
        ),
        (
            '{"interpretations": [], "edges": {"features": ["L0:1"], "effects": [[1, 2]]}}',
            r"edges: effects is \[1, 2\] and to_metric \[1\], must be \[1, 1\] and \[1\]",
        ),
    ):
        more.write_text(text)
        with pytest.raises(PieFastError, match=message):
            write_report(bare, out)
    (bare / "result.json").write_text('{"features": []}')
    with pytest.raises(PieFastError, match=r"result.json: settings is not a dict"):
        write_report(bare, out)
    assert not out.exists()


def test_nothing_tells_where_a_folder_is(bare: Path, tmp_path: Path) -> None:
    path = bare / "result.json"
    result = json.loads(path.read_text())
    places = {"model": "/home/me/data/tiny"}
    result["settings"] |= {"model": "me/data/tiny", "clt": "/home/me/my-clt", "places": places}
    report_world.write(path, result)
    for format in ("html", "md"):
        text = write_report(bare, tmp_path / "report", format=format).read_text()  # type: ignore[arg-type]
        assert "/home" not in text and "me/data" not in text
        assert "--model tiny --clt my-clt" in text
    result["settings"] |= {"model": "owner/name", "places": {}}
    report_world.write(path, result)
    assert "--model owner/name" in write_report(bare, tmp_path / "report").read_text()


@pytest.mark.parametrize(
    "field",
    [
        "n_active", "n_features", "n_dictionary", "timings", "model_calls", "versions", "cost",
        "curves", "budget_choice", "missed_mass", "ablation", "reconstruction",
    ],
)  # fmt: skip
def test_a_damaged_field_is_a_plain_error(bare: Path, tmp_path: Path, field: str) -> None:
    path = bare / "result.json"
    report_world.write(path, {**json.loads(path.read_text()), field: "much"})
    for format in ("html", "md"):
        with pytest.raises(PieFastError, match=r"as `discover` writes it") as found:
            write_report(bare, tmp_path / "report.html", format=format)  # type: ignore[arg-type]
        assert str(found.value).startswith(f"{path}: ")
        assert "Error" not in str(found.value)


def test_a_report_imports_no_torch(full: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pie_fast.report import write_report; "
        "write_report(Path(sys.argv[1]), Path(sys.argv[2])); "
        "print({'torch', 'transformers', 'matplotlib', 'pandas'} & {*sys.modules})"
    )
    arguments = [sys.executable, "-c", code, str(full), str(tmp_path / "report.html")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
