"""Circuits of nodes from the command line: found, told, evaluated, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from pie_fast import open_dump
from running import BUDGET, N_HELD_OUT, Outcome, World, run_cli


@pytest.fixture(scope="module")
def nodes(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run, and what `discover --unit node --json` said."""
    path = tmp_path_factory.mktemp("nodes") / "run"
    said = discover(world, path, "--stability", 2, "--json")
    return path, said.json


def discover(world: World, out: Path, *args: object, k: object = BUDGET) -> Outcome:
    return run_cli("discover", *world.sources, "--unit", "node", "-k", k, "--out", out, *args)


def test_discover_keeps_nodes(world: World, nodes: tuple[Path, dict[str, Any]]) -> None:
    path, result = nodes
    assert [set(row) for row in result["features"]] == [
        {"layer", "index", "slot", "score", "rank", "stability"}
    ] * BUDGET
    units = [(row["layer"], row["index"], row["slot"]) for row in result["features"]]
    features = list(dict.fromkeys(unit[:2] for unit in units))
    assert len(set(units)) == BUDGET > 0 and all(unit[2].startswith("-") for unit in units)
    assert [(told["layer"], told["index"]) for told in result["interpretations"]] == features
    assert result["n_features"] == result["n_interpreted"] == len(features)
    assert (result["unit"], result["settings"]["unit"]) == ("node", "node")
    assert result["ablation"] is result["missed_mass"] is None
    evaluation = result["evaluation"]
    assert (evaluation["n_units"], evaluation["n_features"]) == (BUDGET, len(features))
    assert len(evaluation["kl_divergences"]) == N_HELD_OUT
    assert open_dump(path / "dump").manifest["unit"] == "node"
    assert result["n_active"] > len(open_dump(path / "dump").active_features())
    (curve,) = result["curves"].values()
    mine = next(point for point in curve if point["budget"] == BUDGET)
    assert mine["mean_kl"] == pytest.approx(evaluation["mean_kl"], abs=1e-5)


def test_evaluate_reads_nodes(world: World, nodes: tuple[Path, dict[str, Any]]) -> None:
    path, said = nodes
    command = ("evaluate", *world.sources, "--features", path / "result.json", "--json")
    found = run_cli(*command).json
    for key in ("behavioral_fidelity", "kl_divergences", "intervals", "error_drop", "n_features"):
        assert found[key] == said["evaluation"][key]


def test_an_automatic_budget_counts_nodes(world: World, tmp_path: Path) -> None:
    target = ("--target-fidelity", 0.05, "--no-curve", "--json")
    result = discover(world, tmp_path / "run", *target, k="auto").json
    assert result["budget_choice"]["budget"] == len(result["features"])


def test_tables_name_nodes(world: World, tmp_path: Path) -> None:
    said = discover(world, tmp_path / "run", "--method", "fap", "--no-curve", k=3)
    assert said.code == 0, said.stderr
    words = " ".join(said.stdout.split())
    assert "The 3 nodes of the circuit" in words and "kept 3 of" in words
    assert "active nodes" in words and " at -" in words


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--method", "fap-synergy"], ["selector fap-synergy needs unit 'feature', not 'node'"]),
        (["--method", "paper"], ["selector fap-synergy needs unit 'feature', not 'node'"]),
        (["--method", "acdc"], ["selector acdc needs unit 'feature', not 'node'"]),
        (["--missed", 8], ["missed 8 needs unit 'feature', not 'node'"]),
        (["--unit", "neuron"], ["--unit", "neuron", "feature", "node"]),
    ],
)
def test_refused_before_any_work(
    world: World, tmp_path: Path, options: list[object], parts: list[str]
) -> None:
    discover(world, tmp_path / "run", *options).refused(*parts)
    assert list(tmp_path.iterdir()) == []


def test_more_nodes_than_there_are(
    world: World, nodes: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    n_active = nodes[1]["n_active"]
    said = discover(world, tmp_path / "run", k=n_active + 1)
    said.refused(f"budget {n_active + 1} exceeds the {n_active} active nodes")
    # The capture that it leaves is of a run of nodes.
    features = ("discover", *world.sources, "-k", 5, "--out", tmp_path / "run", "--resume")
    run_cli(*features).refused("unit", "'node'", "'feature'")


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([{"slot": "-1"}, {}], ["features[1]", "slot must be text, of all features or none"]),
        ([{"slot": 3}], ["features[0]", "slot must be text"]),
        ([{"slot": "-1"}, {"slot": "-1"}], ["features holds a node twice"]),
        ([{"slot": "S2"}], ["slot 'S2' is in no prompt of the behavior; there are: "]),
        ([{"slot": "-1", "index": tiny.N_FEATURES}], [f"L0:{tiny.N_FEATURES} is not in"]),
    ],
)
def test_bad_files(
    world: World, tmp_path: Path, rows: list[dict[str, Any]], parts: list[str]
) -> None:
    path = tmp_path / "circuit.json"
    path.write_text(json.dumps({"features": [{"layer": 0, "index": 1, **row} for row in rows]}))
    run_cli("evaluate", *world.sources, "--features", path).refused(*parts)
