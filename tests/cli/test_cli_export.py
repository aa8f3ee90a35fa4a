"""`pie-fast export`: a run as an attribution graph of one prompt, or as a table."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pie_fast.exchange import Graph, check_graph, read_graph
from pie_fast.types import FeatureId
from running import DEMO_BUDGET as K
from running import contents, run_cli, written


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    """A copy, to be changed at will."""
    return Path(shutil.copytree(demo_run, tmp_path / "ioi"))


def result(run: Path) -> dict[str, Any]:
    return written(run / "result.json")


def features_of(run: Path) -> list[FeatureId]:
    return [FeatureId(f["layer"], f["index"]) for f in result(run)["features"]]


def exported(run: Path, out: Path, *args: object) -> Graph:
    said = run_cli("export", run, "--to", "circuit-tracer", "-o", out, "--json", *args).json
    path = Path(said["file"])
    assert path.parent == out and check_graph(json.loads(path.read_text())) == ()
    graph = read_graph(path)
    assert said["nodes"] == len(graph.nodes) and said["links"] == len(graph.links)
    assert said["feature_nodes"] == len(graph.features)
    assert said["features"] == len({(node.layer, node.index) for node in graph.features})
    return graph


def test_a_prompt_becomes_a_graph_of_the_circuit(demo_run: Path, tmp_path: Path) -> None:
    graph = exported(demo_run, tmp_path / "data", "--prompt", 3)
    assert graph.slug == "ioi-3" and graph.prompt == "".join(graph.prompt_tokens)
    assert graph.prompt_tokens[0] == "<|bos|>" and graph.prompt_tokens[-1] == " to"
    labels = {one["feature"]: one["label"] for one in result(demo_run)["interpretations"]}
    found = {FeatureId(node.layer, node.index) for node in graph.features}
    assert found and found <= set(features_of(demo_run))
    for node in graph.features:
        label = labels[f"L{node.layer}:{node.index}"]
        assert node.activation and label.startswith(node.label.removesuffix("..."))
        assert 10 < len(node.label) <= 60
    target = graph.target
    assert target is not None and " over " in target.label and "(p=0." in target.label
    assert target.label.split('"')[1] in graph.prompt_tokens
    settings = {"metric": "logit-diff", "model": "model"}
    assert graph.info["generation_settings"] == settings, "folders by their names"
    assert graph.scan == graph.info["info"]["transcoder_set"] == "clt"  # type: ignore[index]
    index = json.loads((tmp_path / "data" / "graph-metadata.json").read_text())
    assert [entry["slug"] for entry in index["graphs"]] == ["ioi-3"]


def test_effects_are_those_of_the_run(demo_run: Path, tmp_path: Path) -> None:
    from pie_fast.discovered_run import DiscoveredRun
    from pie_fast.interpret.node_edges import node_edges

    graph = exported(demo_run, tmp_path / "data", "--edge-share", 1)
    run = DiscoveredRun(demo_run)
    loaded = run.load(None, None, "cpu")
    prompt = run.behavior(None, loaded).selection[0]
    assert graph.token_ids == prompt.tokens
    ids = [feature.to_global(loaded.clt.n_features) for feature in run.features[0]]
    edges = node_edges(loaded, prompt, ids, metric="logit-diff")
    assert len(edges.features) == len(graph.features)
    assert graph.target is not None and graph.target.index == prompt.answer
    to_metric = {k.source: k.weight for k in graph.links if k.target == graph.target.id}
    for feature, position, effect in zip(
        edges.features, edges.positions.tolist(), edges.to_metric.tolist(), strict=True
    ):
        assert to_metric[f"{feature.layer}_{feature.index}_{position}"] == pytest.approx(effect)


def test_the_strongest_links_are_kept(demo_run: Path, tmp_path: Path) -> None:
    whole, half = (
        {(link.source, link.target): link.weight for link in graph.links}
        for graph in (
            exported(demo_run, tmp_path / "whole", "--edge-share", 1),
            exported(demo_run, tmp_path / "half", "--edge-share", 0.5),
        )
    )
    assert 0 < len(half) < len(whole) and half.items() <= whole.items()


def test_a_text_of_ones_own_is_answered_by_the_model(demo_run: Path, tmp_path: Path) -> None:
    import torch

    from pie_fast.discovered_run import DiscoveredRun

    text = "When Alice and Brian met at the castle, Brian handed a notebook to"
    graph = exported(demo_run, tmp_path / "data", "--text", text, "--slug", "mine")
    assert graph.slug == "mine" and graph.prompt == f"<|bos|>{text}"
    assert graph.info["generation_settings"]["metric"] == "logit"  # type: ignore[index]
    bridge = DiscoveredRun(demo_run).load(None, None, "cpu").host.bridge
    chances = bridge(torch.tensor([graph.token_ids]))[0, -1].softmax(-1)
    assert graph.target is not None and graph.target.index == int(chances.argmax())
    assert graph.target.probability == pytest.approx(float(chances.max()), rel=1e-4)


def test_labels_are_those_of_the_interpretation(run: Path, tmp_path: Path) -> None:
    features = features_of(run)
    told = [
        {"feature": str(f), "layer": f.layer, "index": f.index, "label": f"word {n}; raises x"}
        for n, f in enumerate(features)
    ]
    (run / "interpretation.json").write_text(json.dumps({"interpretations": told}))
    words = {f: f"word {n}" for n, f in enumerate(features)}
    for node in exported(run, tmp_path / "data").features:
        assert node.label == words[FeatureId(node.layer, node.index)]


def test_features_that_work_together_are_supernodes(grouped_run: Path, tmp_path: Path) -> None:
    graph = exported(grouped_run, tmp_path / "data")
    features = sorted(features_of(grouped_run))
    groups = [
        {FeatureId(graph.by_id[one].layer, graph.by_id[one].index) for one in ids}
        for _, ids in graph.supernodes
    ]
    active = {FeatureId(node.layer, node.index) for node in graph.features}
    expected = [active & set(features[:2]), active & set(features[3:])]
    assert groups == [group for group in expected if group] != []
    q_params = json.loads((tmp_path / "data" / "ioi-0.json").read_text())["qParams"]
    members = [one for _, *ids in q_params["supernodes"] for one in ids]
    assert graph.target is not None and q_params["pinnedIds"] == [*members, graph.target.id]


def test_tables_hold_the_features_in_order(run: Path, tmp_path: Path) -> None:
    names = [str(feature) for feature in features_of(run)]
    first = features_of(run)[0]
    told = {"feature": names[0], "layer": first.layer, "index": first.index, "label": "mine"}
    (run / "interpretation.json").write_text(json.dumps({"interpretations": [told]}))
    for form in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"table.{form}"
        assert run_cli("export", run, "--to", form, "-o", out, "--json").json["rows"] == K
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["feature"] for row in rows] == names
    assert rows[0]["label"] == "mine" and rows[1]["label"] != "mine"
    lines = (tmp_path / "table.jsonl").read_text().splitlines()
    assert [json.loads(line)["feature"] for line in lines] == names


def test_bad_input_is_refused(run: Path, tmp_path: Path) -> None:
    graph = ("export", run, "--to", "circuit-tracer", "-o", tmp_path / "data")
    run_cli(*graph, "--prompt", 16).refused("prompt 16 is not from 0 to 15")
    run_cli(*graph, "--prompt", 1, "--text", "a").refused("--prompt and --text")
    run_cli(*graph, "--edge-share", 0).refused("edge_share is 0")
    run_cli(*graph, "--text", "the " * 600).refused("the text has", "the model's context")
    run_cli(*graph, "--slug", "../x").refused("slug '../x'")
    run_cli(*graph, "--metric", "kl").refused("kl")
    table = ("export", run, "--to", "csv", "-o", tmp_path / "t.csv")
    run_cli(*table, "--text", "a").refused("--text is of graphs")
    run_cli(*table, "--edge-share", 0.5).refused("--edge-share is of graphs")
    run_cli(*table, "--model", "x").refused("--model is of graphs")
    run_cli("export", tmp_path, "--to", "csv", "-o", tmp_path / "t.csv").refused("is not a run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ioi"]


def test_a_damaged_interpretation_is_named(run: Path, tmp_path: Path) -> None:
    forms = (("csv", tmp_path / "t.csv"), ("circuit-tracer", tmp_path / "data"))
    file = run / "interpretation.json"
    for content in ({}, {"interpretations": "a"}, {"interpretations": [1]}):
        file.write_text(json.dumps(content))
        for to, out in forms:
            said = run_cli("export", run, "--to", to, "-o", out)
            said.refused(file, "interpretations is ", "must be a list of objects")
    file.write_text(json.dumps({"interpretations": [{"layer": "1", "index": 0}]}))
    for to, out in forms:
        run_cli("export", run, "--to", to, "-o", out).refused(run, "field 'layer' is '1'")
    file.unlink()
    for name in ("interpretations", "ablation"):
        damaged = {**result(run), name: "damaged"}
        (run / "result.json").write_text(json.dumps(damaged))
        said = run_cli("export", run, "--to", "csv", "-o", tmp_path / "t.csv")
        said.refused(run / "result.json", f"{name} is 'damaged'")


def test_nodes_and_features_are_counted_apart(demo_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    said = run_cli("export", demo_run, "--to", "circuit-tracer", "-o", out)
    graph = read_graph(out / "ioi-0.json")
    kept = {(node.layer, node.index) for node in graph.features}
    assert len(kept) < len(graph.features)
    assert f"{len(graph.features)} feature nodes of {len(kept)} features, " in said.stdout


def test_what_is_there_is_kept_without_force(demo_run: Path, tmp_path: Path) -> None:
    exported(demo_run, tmp_path / "data")
    before = contents(tmp_path)
    graph = ("export", demo_run, "--to", "circuit-tracer", "-o", tmp_path / "data")
    run_cli(*graph).refused("ioi-0.json exists", "--force")
    assert contents(tmp_path) == before
    assert run_cli(*graph, "--force").code == 0
    assert contents(tmp_path) == before
