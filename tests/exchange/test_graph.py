"""Graph JSON: what is written is valid and comes back; files of others; what is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.graphs import error, feature, graphs, node, small
from pie_fast.errors import BudgetError, DumpError, PieFastError
from pie_fast.exchange.graph import Graph, GraphLink, Node, cantor
from pie_fast.exchange.graph_import import (
    choose_features,
    choose_nodes,
    graph_from_dict,
    read_graph,
)
from pie_fast.exchange.graph_json import check_graph, graph_to_dict, write_graph
from pie_fast.types import FeatureId


def test_features_are_numbered_as_circuit_tracer_numbers_them() -> None:
    assert cantor(0, 18753) == 175865634
    assert cantor(1, 12928) == 83598913
    pairs = [(layer, index) for layer in range(40) for index in range(40)]
    assert len({cantor(*pair) for pair in pairs}) == len(pairs)


@given(graphs())
def test_what_is_written_is_valid_and_comes_back(graph: Graph) -> None:
    text = json.dumps(graph_to_dict(graph), allow_nan=False)
    assert check_graph(json.loads(text)) == ()
    again = graph_from_dict(json.loads(text))
    assert sorted(again.nodes, key=lambda n: n.id) == sorted(graph.nodes, key=lambda n: n.id)
    assert again.links == graph.links and again.supernodes == graph.supernodes
    assert again.token_ids == graph.token_ids
    assert again.target == graph.target and again.target is not None
    for name in ("slug", "scan", "prompt", "prompt_tokens", "info"):
        assert getattr(again, name) == getattr(graph, name)


def test_a_folder_lists_its_graphs_once(tmp_path: Path) -> None:
    graph = graph_from_dict(small())
    for slug in ("a", "b", "a"):
        write_graph(tmp_path / "new", replace(graph, slug=slug))
    listed = json.loads((tmp_path / "new" / "graph-metadata.json").read_text())["graphs"]
    assert [entry["slug"] for entry in listed] == ["b", "a"]
    assert listed[0]["prompt_tokens"] == ["<bos>", "3"]
    assert read_graph(tmp_path / "new" / "a.json") == replace(graph, slug="a")
    (tmp_path / "graph-metadata.json").write_text('{"graphs": 1}')
    with pytest.raises(DumpError, match="field 'graphs' is 1, must be a list"):
        write_graph(tmp_path, graph)
    assert not (tmp_path / "small.json").exists()


def test_a_file_of_circuit_tracer_is_read() -> None:
    assert check_graph(small()) == ()
    graph = graph_from_dict(small())
    assert [(n.kind, n.layer, n.index) for n in graph.nodes][:3] == [
        ("feature", 0, 18753),
        ("feature", 1, 12928),
        ("error", 24, -1),
    ]
    assert graph.nodes[1].activation == 11.8125 and graph.nodes[1].label == "digits"
    assert graph.token_ids == (2, 235304)
    assert graph.target is not None and graph.target.index == 235310
    assert graph.supernodes == (("numbers", ("0_18753_1", "1_12928_1")),)
    assert graph.info == {"node_threshold": 0.5}


def test_old_ids_of_errors_are_read() -> None:
    document = small()
    document["nodes"][2] = error("0_24_1", 24, 1)
    document["links"][4]["source"] = "0_24_1"
    graph = graph_from_dict(document)
    assert graph.nodes[2] == Node("error", 24, -1, 1)
    assert graph.links[4].source == "24_-1_1"
    assert graph_to_dict(graph)["nodes"][2]["node_id"] == "24_-1_1"


def test_an_old_id_of_two_nodes_is_refused() -> None:
    document = small()
    document["nodes"].append(feature(0, 24, 1))
    document["nodes"].append(error("0_24_1", 24, 1))
    with pytest.raises(DumpError, match=r"\(error\): field 'node_id' '0_24_1' is also of .*\(feat"):
        graph_from_dict(document)


def test_schema_0_numbers_features_in_another_way() -> None:
    document = small()
    document["nodes"][0]["feature"] = 18753
    with pytest.raises(DumpError, match="'feature' is 18753, must be 175865634"):
        graph_from_dict(document)
    document["metadata"]["schema_version"] = 0
    assert graph_from_dict(document).nodes[0].index == 18753


def test_a_graph_without_all_its_tokens_has_no_token_ids() -> None:
    document = small()
    del document["nodes"][3], document["links"][0]
    assert graph_from_dict(document).token_ids is None


Change = Callable[[dict[str, Any]], Any]


def of_node(place: int, **fields: Any) -> Change:
    return lambda document: document["nodes"][place].update(fields)


def of_link(**fields: Any) -> Change:
    return lambda document: document["links"][0].update(fields)


def of(part: str, **fields: Any) -> Change:
    return lambda document: document[part].update(fields)


BAD: list[tuple[Change, str]] = [
    (lambda d: d.pop("nodes"), "field 'nodes' is missing"),
    (lambda d: d.update(links=3), "field 'links' is 3"),
    (lambda d: d.update(nodes=[3]), "field 'nodes'"),
    (of("metadata", prompt_tokens=["a", 3]), "prompt_tokens"),
    (of("metadata", slug=None), "slug"),
    (of("metadata", schema_version="1"), "schema_version"),
    (of("qParams", supernodes=[[]]), "supernodes"),
    (of("qParams", supernodes=["x"]), "supernodes"),
    (of("qParams", supernodes=[["x", "9_9_9"]]), "'9_9_9', which is not the node_id"),
    (of_node(0, feature_type="lorsa"), "'lorsa', must be one of 'embedding'"),
    (of_node(0, node_id="0_18753_0"), r"node_id.*\{layer\}_\{index\}_\{ctx_idx\}"),
    (of_node(0, node_id="1_18753_1"), "node_id"),
    (of_node(0, node_id="intermediate_1_0_3"), "node_id"),
    (of_node(0, node_id="٠_18753_1"), "node_id"),
    (of_node(2, node_id="1_24_1"), "node_id"),
    (of_node(0, layer="-1"), "'layer' is '-1', must be a layer's number"),
    (of_node(0, layer=-1), "'layer' is -1"),
    (of_node(0, layer="9" * 10), "'layer'"),
    (of_node(3, layer="0"), "'layer' is '0', must be 'E'"),
    (of_node(0, ctx_idx=2), "'ctx_idx' is 2, must be below 2"),
    (of_node(0, ctx_idx=-1), "'ctx_idx' is -1"),
    (of_node(0, ctx_idx=True), "'ctx_idx' is True"),
    (of_node(0, influence=math.inf), "'influence' is inf"),
    (of_node(0, activation="5"), "'activation' is '5'"),
    (of_node(0, is_target_logit=True), "is_target_logit"),
    (of_node(5, token_prob=-0.1), "token_prob"),
    (of_node(0, clerp=3), "clerp"),
    (lambda d: d["nodes"].append(d["nodes"][0]), "'node_id' '0_18753_1' is also of"),
    (of_link(source="E_2_1"), "'source' is 'E_2_1', must be the node_id of a node"),
    (of_link(target=None), "'target' is None"),
    (of_link(target="E_2_0"), "of a layer above -1"),
    (of_link(weight=math.nan), "'weight' is nan, must be a finite number"),
    (of_link(weight=None), "'weight' is None"),
    (of_link(weight=True), "'weight' is True"),
    (lambda d: d["links"].append(d["links"][0]), "links 0 and 5 join the same nodes"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_fit_is_named(change: Change, message: str) -> None:
    document = small()
    change(document)
    with pytest.raises(DumpError, match=message):
        graph_from_dict(document)
    (problem,) = check_graph(document)
    assert problem.startswith("graph")


def test_a_link_does_not_go_back_in_the_prompt() -> None:
    document = small()
    document["nodes"].append(feature(5, 5, 0))
    document["links"].append({"source": "0_18753_1", "target": "5_5_0", "weight": 1})
    with pytest.raises(DumpError, match="at ctx_idx 1, the source's, or later"):
        graph_from_dict(document)


UNUSUAL: list[tuple[Change, str]] = [
    (of("metadata", schema_version=0), "schema_version is 0, must be 1"),
    (of("metadata", node_threshold=2), "node_threshold is 2"),
    (lambda d: d.pop("qParams"), "qParams is None"),
    (of("qParams", linkType=None), "linkType is None, must be a text"),
    (of("qParams", pinnedIds=["9_9_9"]), "pinnedIds holds '9_9_9'"),
    (lambda d: d["nodes"][0].pop("jsNodeId"), "node 0_18753_1: jsNodeId is missing"),
    (of_node(0, jsNodeId="0_1-0"), "jsNodeId is '0_1-0', must be '0_18753-0'"),
    (of_node(4, feature=0), "feature is 0, must be 1"),
    (of_node(5, clerp="4"), r"must hold '\(p='"),
    (of_node(5, is_target_logit=False), "0 nodes are is_target_logit"),
    (of_node(5, token_prob=1.5), "sum to 1.5"),
    (lambda d: d["nodes"].append(feature(27, 1, 1)), "layer is 27, must be above all others, 27"),
]


@pytest.mark.parametrize(("change", "message"), UNUSUAL, ids=[message for _, message in UNUSUAL])
def test_what_viewers_rely_on_is_checked_but_read(change: Change, message: str) -> None:
    document = small()
    change(document)
    graph_from_dict(document)
    (problem,) = check_graph(document)
    assert re.search(message, problem)


def test_logits_are_of_one_layer_at_the_last_position() -> None:
    document = small()
    other = {**document["nodes"][5], "is_target_logit": False}
    other |= {"node_id": "28_7_0", "layer": "28", "ctx_idx": 0, "feature": 7, "jsNodeId": "L_7-0"}
    document["nodes"].append(other)
    problems = check_graph(document)
    assert len(problems) == 2
    assert "must be the last position, 1" in problems[0] and "of several layers" in problems[1]


@pytest.mark.parametrize("text", ["", "[]", "3", '{"nodes": Infinity}', "{" * 10**5])
def test_what_is_no_graph_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DumpError, match=r"a\.json"):
        read_graph(tmp_path / "a.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
PLACES = ["metadata", "qParams", "nodes", "links"]


@given(st.data())
def test_any_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    document: Any = small()
    part: Any = document
    key: Any = data.draw(st.sampled_from(PLACES))
    while isinstance(part[key], dict | list) and part[key] and data.draw(st.booleans()):
        part = part[key]
        keys = range(len(part)) if isinstance(part, list) else sorted(part)
        key = data.draw(st.sampled_from(keys))
    part[key] = data.draw(JSON)
    try:
        graph_from_dict(document)
    except DumpError:
        assert len(check_graph(document)) == 1
    else:
        check_graph(document)


@pytest.mark.parametrize("slug", ["", "../x", "a/b", ".hidden", "a b", "x" * 129])
def test_a_slug_names_a_file(tmp_path: Path, slug: str) -> None:
    with pytest.raises(PieFastError, match="as it names a file"):
        write_graph(tmp_path, replace(graph_from_dict(small()), slug=slug))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_not_valid_is_not_written(tmp_path: Path) -> None:
    graph = graph_from_dict(small())
    bad = replace(graph, links=(GraphLink("E_2_0", "0_18753_1", math.nan),))
    with pytest.raises(PieFastError, match="'weight' is nan"):
        write_graph(tmp_path, bad)
    assert list(tmp_path.iterdir()) == []


def test_the_strongest_have_the_smallest_influence() -> None:
    graph = graph_from_dict(small())
    assert [n.id for n in choose_nodes(graph, 2)] == ["1_12928_1", "0_18753_1"]
    assert choose_features(graph, 1) == (FeatureId(1, 12928),)
    for k in (0, 3):
        with pytest.raises(BudgetError, match=f"budget {k} is not from 1 to 2, the feature nodes"):
            choose_nodes(graph, k)
        with pytest.raises(BudgetError, match="the features of the graph"):
            choose_features(graph, k)


def test_a_feature_at_several_positions_counts_once() -> None:
    document = small()
    document["nodes"] += [feature(1, 12928, 0, influence=0.35), feature(2, 3, 1, influence=0.4)]
    graph = graph_from_dict(document)
    assert [n.id for n in choose_nodes(graph, 3)] == ["1_12928_1", "1_12928_0", "0_18753_1"]
    found = choose_features(graph, 3)
    assert found == (FeatureId(1, 12928), FeatureId(0, 18753), FeatureId(2, 3))


def test_without_influences_links_decide() -> None:
    document = small()
    for one in document["nodes"]:
        one["influence"] = None
    graph = graph_from_dict(document)
    assert [n.id for n in choose_nodes(graph, 2)] == ["1_12928_1", "0_18753_1"]
    document["links"][2]["weight"] = -10.0
    assert choose_nodes(graph_from_dict(document), 1)[0].id == "0_18753_1"


def test_a_node_of_any_form_has_its_own_id() -> None:
    assert Node("embedding", -1, 7, 2).id == "E_7_2"
    assert Node("error", 3, -1, 2).id == "3_-1_2"
    assert node("x")["node_id"] == "x"
