"""What each command leaves behind and prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pie_fast import SynergyMatrix, open_dump
from pie_fast.journal import spent_by
from running import BUDGET, N_HELD_OUT, N_SELECTION, Outcome, World, contents, run_cli, written


def test_discover_says_what_it_did(discovered: tuple[Path, Outcome]) -> None:
    outcome = discovered[1]
    result = outcome.json
    assert outcome.stderr == ""
    assert "the CLT reads mlp.hook_in and writes hook_mlp_out" in outcome.fit_note
    assert [set(row) for row in result["features"]] == [
        {"layer", "index", "score", "rank", "stability"}
    ] * BUDGET
    assert [row["rank"] for row in result["features"]] == list(range(BUDGET))
    named = [(row["layer"], row["index"]) for row in result["features"]]
    assert len(set(named)) == BUDGET
    assert [(told["layer"], told["index"]) for told in result["interpretations"]] == named
    assert result["n_interpreted"] == BUDGET
    assert all(told["label"] for told in result["interpretations"])
    assert result["cost"] == {"forward": 3.0, "backward": 3.0}, "five a pass, and the anchor"
    evaluation = result["evaluation"]
    assert len(evaluation["kl_divergences"]) == N_HELD_OUT
    mean = float(np.mean(evaluation["kl_divergences"]))
    assert evaluation["behavioral_fidelity"] == pytest.approx(1 - min(mean, 1))
    assert {"error_keep", "error_drop"} <= set(evaluation)
    settings = result["settings"]
    assert result["selector"] and settings["method"] == "auto"
    assert (settings["budget"], settings["n_selection"]) == (BUDGET, N_SELECTION)
    assert {"metric", "baseline", "direction", "estimator", "gradient", "seed"} <= set(settings)
    stages = {"load", "capture", "interpret", "evaluate", "curve"}
    assert stages <= set(result["timings"])
    assert {"pie-fast", "torch", "transformers", "python"} <= set(result["versions"])


def test_result_file_is_what_was_printed(discovered: tuple[Path, Outcome]) -> None:
    path, outcome = discovered
    printed = outcome.json
    assert printed.pop("folder") == str(path)
    spent = spent_by(path, "discover")
    assert set(spent) == {"timings", "model_calls"}
    assert written(path / "result.json") | spent == printed
    assert open_dump(path / "dump").complete
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_seed_gives_the_same_features(
    world: World, discovered: tuple[Path, Outcome], tmp_path: Path
) -> None:
    again = run_cli(
        *("discover", *world.sources, "-k", BUDGET, "--no-curve", "-o", tmp_path / "r", "--json")
    )
    result, first = again.json, discovered[1].json
    assert result["curves"] == {}
    for key in ("features", "interpretations", "evaluation"):
        assert result[key] == first[key]


def test_discover_prints_tables_for_people(world: World, tmp_path: Path) -> None:
    said = run_cli(
        *("discover", *world.sources, "-k", 5, "--method", "fap", "--no-curve"),
        *("--missed", 8, "--out", tmp_path / "run"),
    )
    assert said.code == 0
    words = " ".join(said.stdout.split())
    assert "kept 5 of" in words
    assert "none of them does more than" in words and "8 random halves" in words
    assert "errors dropped" in said.stdout
    run = tmp_path / "run"
    *_, files, after = said.stdout.splitlines()
    assert files == f"files: {run / 'result.json'}, {run / 'run.toml'}, {run / 'dump'}"
    assert after == f"next: pie-fast interpret {run}, pie-fast report {run} -o report.html"
    assert not (tmp_path / "run" / "dump" / "synergy.safetensors").exists()


@pytest.mark.parametrize(
    ("method", "options", "forward", "backward", "note"),
    [
        ("random", [], 0, 0, ""),
        ("fap", ["gradient=gim"], 1, 1, ""),
        ("fap-ig", ["steps=3", "metric=kl"], 3, 3, ""),
        ("conditional-shortlist", ["shortlist=2"], 6 * (1 + 3), 6, "takes at most 24 forward"),
        ("conditional-gradient", ["batch=2"], 3, 3, ""),
        ("exact", [], None, 0, "exact takes at most"),
        ("acdc", ["pool=20", "sweeps=3"], None, 1, "acdc takes at most 123 forward and 1 backward"),
        ("fap-synergy", [], None, None, "fap-synergy takes about"),
        ("fap-synergy", ["pool=12", "direction=both"], None, None, "fap-synergy takes at most"),
    ],
)
def test_any_selector_finds_a_circuit(
    world: World,
    tmp_path: Path,
    method: str,
    options: list[str],
    forward: int | None,
    backward: int | None,
    note: str,
) -> None:
    given = [part for option in options for part in ("--method-option", option)]
    said = run_cli(
        *("discover", *world.sources, "-k", 6, "--method", method, *given, "--no-curve"),
        *("--out", tmp_path / "run", "--stability", 3, "--json"),
    )
    result = said.json
    assert result["selector"] == method and len(result["features"]) == 6
    assert result["settings"]["budget"] == 6
    for option in options:
        name, value = option.split("=")
        assert str(result["settings"]["method_options"][name]) == value
    cost = result["cost"]
    assert forward is None or cost["forward"] == forward
    assert backward is None or cost["backward"] == backward
    assert cost["forward"] >= cost["backward"] >= 0
    assert note in said.stderr and said.stderr.count("note:") == bool(note)
    again = [row.get("stability") for row in result["features"]]
    known = method not in ("random", "acdc")  # to sweep again would cost as much each time
    assert all((share is not None) == known for share in again)


@pytest.mark.parametrize("method", ["relp", "acdc"])
def test_the_curve_has_the_method_of_the_run(world: World, tmp_path: Path, method: str) -> None:
    sweep = ("--method-option", "pool=20", "--method-option", "sweeps=2")
    said = run_cli(
        *("discover", *world.sources, "-k", 6, "--method", method, "--out", tmp_path / "run"),
        *(sweep if method == "acdc" else ()),
        "--json",
    )
    curve = said.json["curves"][method]
    budgets = [point["budget"] for point in curve]
    assert budgets == [6] if method == "acdc" else [5, 6, 10, 20, 35, 50, 75, 100]
    mine = next(point for point in curve if point["budget"] == 6)
    evaluation = said.json["evaluation"]
    assert mine["mean_kl"] == pytest.approx(evaluation["mean_kl"], abs=1e-5)
    interval = evaluation["intervals"]["behavioral_fidelity"]
    assert mine["intervals"]["fidelity"] == pytest.approx(interval, abs=1e-5)


def test_capture_writes_a_dump(captured: tuple[Path, Outcome]) -> None:
    path, outcome = captured
    dump = open_dump(path)
    assert outcome.json["n_prompts"] == dump.n_prompts == N_SELECTION
    assert outcome.json["n_entries"] == dump.n_active > 0
    assert outcome.json["n_active_features"] == len(dump.active_features())
    assert dump.manifest["baseline"] == "counterfactual"
    dump.verify()


def test_capture_options_are_recorded(world: World, tmp_path: Path) -> None:
    said = run_cli(
        *("capture", *world.sources, "--out", tmp_path / "d", "--split", "held_out"),
        *("--metric", "logprob", "--baseline", "mean", "--gradient", "frozen"),
    )
    assert said.code == 0
    assert f"{N_HELD_OUT} prompts" in said.stdout
    manifest = open_dump(tmp_path / "d").manifest
    found = [manifest[key] for key in ("split", "metric", "baseline", "gradient")]
    assert found == ["held_out", "logprob", "mean", "frozen"]


def test_synergy_makes_what_select_reads(world: World, dump: Path, tmp_path: Path) -> None:
    without = run_cli("select", dump, "-k", 5, "--method", "fap-synergy")
    without.refused("pie-fast synergy DUMP --model MODEL --clt CLT")
    made = run_cli("synergy", dump, *world.model_and_clt, "--pool", 12, "--json")
    assert made.json["pool"] == 12
    assert SynergyMatrix.load(dump / "synergy.safetensors").done.all()
    assert not (dump / "synergy.partial.safetensors").exists()
    chosen = run_cli(
        *("select", dump, "-k", 5, "--method", "fap-synergy", "--json"),
        *("--out", tmp_path / "selection.json"),
    )
    assert chosen.json["selector"] == "fap-synergy"
    kept = written(tmp_path / "selection.json")
    assert kept.pop("command")[1] == "select"
    assert kept == chosen.json
    elsewhere = tmp_path / "kept.safetensors"
    (dump / "synergy.safetensors").rename(elsewhere)
    again = run_cli(
        "select", dump, "-k", 5, "--method", "fap-synergy", "--synergy", elsewhere, "--json"
    )
    assert again.json["features"] == chosen.json["features"]


def test_synergy_takes_all_active_features_where_there_are_few(world: World, dump: Path) -> None:
    n_active = len(open_dump(dump).active_features())
    assert n_active < 200
    assert run_cli("synergy", dump, *world.model_and_clt, "--json").json["pool"] == n_active


@pytest.mark.parametrize("method", ["random", "magnitude", "fap"])
def test_select(dump: Path, method: str) -> None:
    said = run_cli("select", dump, "-k", 6, "--method", method, "--seed", 3, "--json")
    rows = said.json["features"]
    assert [row["rank"] for row in rows] == list(range(6))
    assert said.json["selector"] == said.json["settings"]["method"] == method
    assert run_cli("select", dump, "-k", 6, "--method", method, "--seed", 3, "--json") == said
    assert "6 features" in run_cli("select", dump, "-k", 6, "--method", method).stdout


def test_evaluate_reads_selections_and_results(
    world: World, discovered: tuple[Path, Outcome], tmp_path: Path
) -> None:
    result, said = discovered[0] / "result.json", discovered[1].json
    found = run_cli(
        *("evaluate", *world.sources, "--features", result),
        *("--json", "--out", tmp_path / "figures.json"),
    )
    for key in ("behavioral_fidelity", "kl_divergences", "faithfulness"):
        assert found.json[key] == said["evaluation"][key]
    kept = written(tmp_path / "figures.json")
    assert kept.pop("command")[:2] == ["pie-fast", "evaluate"]
    assert kept == found.json
    selection = tmp_path / "selection.json"
    chosen = run_cli("select", discovered[0] / "dump", "-k", 7, "--out", selection)
    assert (chosen.code, f"{selection}" in "".join(chosen.stdout.split())) == (0, True)
    assert written(selection)["command"][:2] == ["pie-fast", "select"]
    figures = run_cli("evaluate", *world.sources, "--features", selection, "--error", "drop")
    assert "errors dropped" in figures.stdout


def test_inspect_and_top(dump: Path) -> None:
    before = contents(dump)
    told = run_cli("inspect", dump, "--json").json
    assert (told["n_prompts"], told["complete"]) == (N_SELECTION, True)
    assert run_cli("inspect", dump, "--deep", "--json").json["checked"] == "deep"
    best = run_cli("top", dump, "-k", 4, "--json").json
    assert [row["rank"] for row in best["features"]] == [0, 1, 2, 3]
    selected = run_cli("select", dump, "-k", 4, "--method", "fap", "--json").json
    assert best["features"] == selected["features"]
    for command in ("inspect", "top"):
        said = run_cli(command, dump)
        assert said.code == 0 and said.stdout
    assert contents(dump) == before


def test_help_is_shown() -> None:
    for command in ("demo", "discover", "capture", "synergy", "select", "evaluate", "inspect"):
        assert command in run_cli("--help").stdout
        said = run_cli(command, "--help")
        assert (said.code, said.stderr) == (0, "")
        assert "--json" in said.stdout
