"""`pie-fast interpret` on a small run of the demo model, with rules and with a language model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pie_fast.behaviors import load_behavior, write_jsonl
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.journal import spent_by
from running import DEMO_BUDGET as K
from running import Outcome, contents, run_cli, written
from scripted_server import Body, Reply, serving, well


@pytest.fixture(scope="module")
def interpreted(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(demo_run, tmp_path_factory.mktemp("interpreted") / "ioi"))
    assert run_cli("interpret", run, "--steered", 4).code == 0
    return run


@pytest.fixture
def run(interpreted: Path, tmp_path: Path) -> Path:
    """A copy that is interpreted already."""
    return Path(shutil.copytree(interpreted, tmp_path / "ioi"))


def read(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "interpretation.json").read_text())
    return found


def with_server(run: Path, url: str, *args: object) -> Outcome:
    return run_cli(
        *("interpret", run, "--steered", 2, "--explainer", "openai", "--base-url", url),
        *("--llm-model", "tiny", "--force", *args),
    )


def test_every_feature_is_told_with_its_measures(interpreted: Path) -> None:
    found = read(interpreted)
    result = json.loads((interpreted / "result.json").read_text())
    assert [i["feature"] for i in found["interpretations"]] == [
        f"L{f['layer']}:{f['index']}" for f in result["features"]
    ]
    assert found["corpus"]["sources"] == {"ioi": 1000}
    for one in found["interpretations"]:
        assert one["explainer"] == "rules" and one["rule"]["held_out"]["n_positions"] > 100
        assert {c["kind"] for c in one["contexts"]} >= {"top", "quantile"}
        for context in one["contexts"]:
            assert len(context["activations"]) == len(context["tokens"])
        assert sum(one["histogram"]["counts"]) == pytest.approx(
            one["density"] * found["corpus"]["n_counted"]
        )
        assert all(name.endswith("_rule") for name in one["quality"])
    names = ("clarity", "responsiveness", "purity", "detection", "fuzzing", "faithfulness")
    assert set(found["quality"]) == {f"{name}_rule" for name in names}
    for measure in found["quality"].values():
        assert measure["n"] + measure["n_missing"] == K
        assert measure["coverage"] == measure["n"] / K
        assert sum(measure["why"].values()) == measure["n_missing"]
    assert len(found["edges"]["effects"]) == K and found["narrative"]["text"]
    lines = (interpreted / "explanations.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == [
        one["label"] for one in found["interpretations"]
    ]


def test_a_pass_that_is_done_is_not_run_again(run: Path) -> None:
    before = read(run)
    assert spent_by(run, "interpret")["model_calls"]["corpus"]["forward"] == 1000
    again = run_cli("interpret", run, "--steered", 4, "--force", "--json").json
    assert again["model_calls"]["corpus"]["forward"] == 0
    assert again["interpretations"] == before["interpretations"]
    assert again["edges"] == before["edges"]


def test_another_corpus_has_a_pass_of_its_own(run: Path) -> None:
    more = ("--corpus", "greater-than", "--steered", 0, "--force")
    assert run_cli("interpret", run, *more).code == 0
    assert read(run)["corpus"]["sources"] == {"ioi": 1000, "greater-than": 256}
    again = run_cli("interpret", run, "--steered", 0, "--force", "--json").json
    assert again["corpus"]["sources"] == {"ioi": 1000}
    assert again["model_calls"]["corpus"]["forward"] == 0


def test_the_model_at_another_place_has_a_pass_of_its_own(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(demo_model_path(), tmp_path / "moved")
    given = ("--model", moved, "--steered", 0, "--force", "--json")
    assert run_cli("interpret", run, *given).json["model_calls"]["corpus"]["forward"] == 1000


def test_what_is_there_is_kept_without_force(run: Path) -> None:
    before = contents(run)
    run_cli("interpret", run).refused("interpretation.json exists", "--force")
    assert contents(run) == before


def test_a_language_model_labels_and_scores(run: Path) -> None:
    with serving() as server:
        said = with_server(run, server.url, "--price", 1, 2)
        assert said.code == 0, said.stderr
        assert "requests, about" in said.stderr and "answers" in said.stderr
        n = len(server.requests)
        assert all(count == 1 for count in server.paid.values())
        assert with_server(run, server.url).code == 0
        assert len(server.requests) == n
    found = read(run)
    assert found["llm"]["failures"] == []
    assert spent_by(run, "interpret")["llm"]["spent"]["reused"] == n
    for one in found["interpretations"]:
        assert one["explainer"] == "openai:tiny" and one["label"].startswith("about ")
        assert "purity_rule" in one["quality"] and "detection_llm" in one["quality"]


def test_fade_rates_texts_and_says_what_it_read(run: Path) -> None:
    with serving() as server:
        said = with_server(run, server.url, "--fade", "--rated", 20)
    assert said.code == 0, said.stderr
    found = read(run)
    for one in found["interpretations"]:
        rated = found["llm"]["fade"][one["feature"]]
        # the server rates everything 1: nothing is clearly with the concept, or without
        none, partly, clearly = rated["natural"]["by_rating"]
        assert none == clearly == rated["natural"]["unrated"] == 0 and 10 <= partly <= 20
        assert one["quality"]["responsiveness_llm"]["value"] is None
        assert one["quality"]["faithfulness_llm"]["why"] == "gate not passed"
        assert one["quality"]["clarity_llm"]["n_positive"] == rated["n_written"] > 0


def test_what_gets_no_answer_is_reported(run: Path) -> None:
    rules = [one["label"] for one in read(run)["interpretations"]]

    def script(body: Body, n: int) -> Reply:
        wanted = '"label"' in body["messages"][0]["content"]
        return Reply(content="no JSON") if wanted else well(body, n)

    with serving(script) as server:
        said = with_server(run, server.url)
    assert said.code == 0, said.stderr
    found = read(run)
    assert [one["label"] for one in found["interpretations"]] == rules
    failed = [f for f in found["llm"]["failures"] if f["template"] == "explain.v1"]
    assert len(failed) == K and "have no answer" in said.stderr


def test_a_dry_run_sends_and_writes_nothing(run: Path) -> None:
    before = contents(run)
    with serving() as server:
        asked = ("--explainer", "openai", "--base-url", server.url, "--llm-model", "tiny")
        said = run_cli("interpret", run, *asked, "--dry-run", "--json")
        assert server.requests == []
    llm = said.json["llm"]
    assert llm["dry_run"] and llm["requests"] >= K and llm["tokens_in"] > 100
    assert contents(run) == before


def test_without_an_answer_what_rules_found_is_kept(run: Path) -> None:
    (run / "interpretation.json").unlink()
    with serving() as server:
        closed = server.url
    asked = ("--explainer", "openai", "--base-url", closed, "--llm-model", "tiny")
    run_cli("interpret", run, "--steered", 0, *asked).refused(closed.split("/")[2])
    assert all(one["explainer"] == "rules" for one in read(run)["interpretations"])


def test_a_missing_key_costs_no_time(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("pie_fast.discovered_run.DiscoveredRun.load", None)
    asked = ("--explainer", "openai", "--llm-model", "tiny", "--force")
    run_cli("interpret", run, *asked).refused("OPENAI_API_KEY")


def test_labels_of_others(run: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (run / "explanations.jsonl").read_text().splitlines()]
    lines[0] |= {"label": "a name\x1b[31m that comes\ntwice", "explainer": "somebody"}
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps(lines[0]) + "\n")
    assert run_cli("interpret", run, "--steered", 0, "--force", "--labels", file).code == 0
    first, *rest = read(run)["interpretations"]
    assert (first["label"], first["explainer"]) == ("a name [31m that comes twice", "somebody")
    assert all(one["explainer"] == "rules" for one in rest)
    lines[0]["clt"] = "another"
    file.write_text(json.dumps(lines[0]) + "\n")
    given = ("--steered", 0, "--force", "--labels", file)
    run_cli("interpret", run, *given).refused("clt", "another")


def test_bad_input_is_refused(run: Path, tmp_path: Path) -> None:
    run_cli("interpret", tmp_path / "nowhere").refused("nowhere", "result.json")
    run_cli("interpret", run, "--force", "--explainer", "openai").refused("--llm-model")
    run_cli("interpret", run, "--dry-run").refused("--dry-run", "--explainer openai")
    run_cli("interpret", run, "--force", "--rated", 5).refused("--rated", "--explainer openai")
    run_cli("interpret", run, "--force", "--contexts", 50).refused("50", "1 to 20")
    (tmp_path / "text.txt").write_text("something")
    text = f"{tmp_path / 'text.txt'}#field"
    run_cli("interpret", run, "--force", "--corpus", text).refused("text.txt", "no field 'field'")
    run_cli("interpret", run, "--force", "--corpus", "missing.txt").refused("missing.txt")
    run_cli("interpret", run, "--force", "--behavior", "ioo").refused("ioo", "docstring")


@pytest.mark.parametrize(
    ("name", "value"), [("behavior_hash", None), ("hooks", ["x"]), ("dtypes", {"model": "int4"})]
)
def test_damaged_settings_are_refused(run: Path, name: str, value: object) -> None:
    result = written(run / "result.json")
    result["settings"][name] = value
    (run / "result.json").write_text(json.dumps(result))
    run_cli("interpret", run, "--force").refused(f"settings.{name}", value)


def test_another_behaviour_of_the_same_name_is_noticed(run: Path) -> None:
    result = written(run / "result.json")
    result["settings"]["behavior_hash"] = "0" * 64
    (run / "result.json").write_text(json.dumps(result))
    run_cli("interpret", run, "--force").refused("000000000000", "--behavior")


def test_files_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = demo_model_path()
    tokenizer = AutoTokenizer.from_pretrained(host)
    write_jsonl(tmp_path / "own.jsonl", load_behavior("ioi", tokenizer=tokenizer, n_prompts=24))
    monkeypatch.chdir(tmp_path)
    sources = ("--model", host, "--clt", demo_clt_path(), "--behavior", "own.jsonl")
    small = ("-k", 2, "-o", "run", "--no-curve", "--stability", 0)
    assert run_cli("discover", *sources, *small).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = run_cli("interpret", tmp_path / "run", "--steered", 0, "--json")
    assert said.json["corpus"]["sources"] == {"own.jsonl": 24}
    assert said.json["settings"]["behavior"] == "own.jsonl"
