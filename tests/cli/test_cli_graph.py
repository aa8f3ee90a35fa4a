"""`pie-fast evaluate --graph`: how much K nodes of an attribution graph keep of the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pie_fast.exchange import choose_features, choose_nodes, read_graph
from running import Outcome, run_cli

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def graph(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    to = ("--to", "circuit-tracer", "--edge-share", 1)
    assert run_cli("export", demo_run, *to, "-o", out).code == 0
    return out / "ioi-0.json"


@pytest.fixture
def evaluated(demo_sources: tuple[object, ...]) -> Callable[..., Outcome]:
    def run(graph: Path, *args: object) -> Outcome:
        return run_cli("evaluate", *demo_sources, "--graph", graph, *args)

    return run


def test_chosen_features_do_what_the_same_selection_does(
    graph: Path, evaluated: Callable[..., Outcome], demo_sources: tuple[object, ...], tmp_path: Path
) -> None:
    ioi = ("--behavior", "ioi", "--prompts", 16)
    found = evaluated(graph, "-k", 3, *ioi, "--json").json
    chosen = [{"layer": f.layer, "index": f.index} for f in choose_features(read_graph(graph), 3)]
    assert [{k: f[k] for k in ("layer", "index")} for f in found["features"]] == chosen
    selection = tmp_path / "selection.json"
    selection.write_text(json.dumps({"features": chosen}))
    same = run_cli("evaluate", *demo_sources, *ioi, "--features", selection, "--json").json
    named = {"name": "ioi", "split": "held_out"}
    assert found["behavior"] == {**same, **named}
    own = found["prompt"]
    assert own["n_prompts"] == 1 and own["switches"]["baseline"] == "mean"
    assert own["metric"] == "logit" and 0 <= own["behavioral_fidelity"] <= 1


def test_all_nodes_are_all_features(graph: Path, evaluated: Callable[..., Outcome]) -> None:
    n = len(read_graph(graph).features)
    frozen = ("--activations", "freeze", "--json")
    found = evaluated(graph, "-k", n, "--unit", "node", *frozen).json
    own = found["prompt"]
    assert own["switches"]["baseline"] == "zero" and found["behavior"] is None
    assert own["mean_kl"] == pytest.approx(own["all_features"]["mean_kl"], abs=1e-6)
    nodes = choose_nodes(read_graph(graph), n)
    assert [f["position"] for f in found["features"]] == [node.position for node in nodes]
    fewer = evaluated(graph, "-k", 1, "--unit", "node", *frozen).json["prompt"]
    assert fewer["mean_kl"] > own["mean_kl"]


def test_figures_are_printed_and_written(
    graph: Path, evaluated: Callable[..., Outcome], tmp_path: Path
) -> None:
    said = evaluated(graph, "-k", 2, "--out", tmp_path / "figures.json")
    assert said.code == 0, said.stderr
    assert "kept 2 features" in said.stdout and "baseline zero" in said.stdout
    assert "[" not in said.stdout, "one prompt has no intervals"
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["budget"] == 2
    assert set(written["prompt"]["intervals"].values()) == {None}


BAD: list[tuple[Change, tuple[str, ...]]] = [
    (lambda d: d.pop("links"), ("field 'links' is missing",)),
    (lambda d: d["nodes"][0].update(ctx_idx=99), ("ctx_idx", "99")),
    (lambda d: d["metadata"]["prompt_tokens"].append("x"), ("embedding nodes", "17")),
    (
        lambda d: d["metadata"].update(prompt_tokens=["x"] * 16),
        ("prompt_tokens has", "16"),
    ),
    (lambda d: renumbered(d, "logit"), ("no logit", "0 to ")),
    (lambda d: renumbered(d, "embedding"), ("tokens", "999999")),
]


def renumbered(document: dict[str, Any], kind: str) -> None:
    """The token of the first node of a kind becomes one that no model here has."""
    old = next(n["node_id"] for n in document["nodes"] if n["feature_type"] == kind)
    layer, _, position = old.split("_")
    text = json.dumps(document).replace(f'"{old}"', f'"{layer}_999999_{position}"')
    document.clear()
    document.update(json.loads(text))


@pytest.mark.parametrize(("change", "parts"), BAD)
def test_a_graph_that_does_not_fit_is_refused(
    graph: Path, evaluated: Callable[..., Outcome], tmp_path: Path, change: Change, parts: Any
) -> None:
    document = json.loads(graph.read_text())
    change(document)
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(document))
    evaluated(broken, "-k", 1).refused("broken.json", *parts)


def test_what_is_no_graph_is_told_from_a_broken_one(
    graph: Path, demo_run: Path, evaluated: Callable[..., Outcome]
) -> None:
    result, listed = demo_run / "result.json", graph.with_name("graph-metadata.json")
    evaluated(result, "-k", 1).refused(result, "is not an attribution graph", "pie-fast export")
    evaluated(listed, "-k", 1).refused(listed, "is not an attribution graph", "SLUG.json beside it")


def test_a_feature_of_another_clt_is_named(
    graph: Path, tiny_folders: tuple[Path, Path], evaluated: Callable[..., Outcome]
) -> None:
    model, clt = tiny_folders
    said = run_cli("evaluate", "-m", model, "-c", clt, "--graph", graph, "-k", 1)
    said.refused("ioi-0.json", "node_id", "of another CLT")


def test_tokens_may_be_spelled_another_way(
    graph: Path, evaluated: Callable[..., Outcome], tmp_path: Path
) -> None:
    document = json.loads(graph.read_text())
    tokens = document["metadata"]["prompt_tokens"]
    document["metadata"]["prompt_tokens"] = [token.replace(" ", "▁") for token in tokens]
    spelled = tmp_path / "spelled.json"
    spelled.write_text(json.dumps(document))
    found, same = (evaluated(file, "-k", 2, "--json").json for file in (spelled, graph))
    assert found["prompt"] == same["prompt"]


def test_options_that_do_not_go_together(
    graph: Path, evaluated: Callable[..., Outcome], demo_sources: tuple[object, ...]
) -> None:
    evaluated(graph).refused("--graph needs --budget")
    evaluated(graph, "-k", 10_000).refused("budget 10000", "--budget")
    evaluated(graph, "-k", 1, "--features", "x").refused("--features and --graph")
    evaluated(graph, "-k", 1, "--metric", "logit").refused("--metric is of a behaviour")
    evaluated(graph, "-k", 1, "--baseline", "counterfactual").refused("no counterfactual")
    evaluated(graph, "-k", 1, "--unit", "node", "-b", "ioi").refused("unit 'feature'")
    run_cli("evaluate", *demo_sources).refused("--features and --behavior", "--graph")
    selection = ("evaluate", *demo_sources, "-b", "ioi", "--features", "x")
    run_cli(*selection, "-k", 1).refused("--budget is of --graph")
    run_cli(*selection, "--unit", "node").refused("--unit is of --graph")
