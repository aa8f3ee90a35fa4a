"""Influence against the matrix series, links pruned, and graphs made of direct effects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.graphs import graphs, tame
from pie_fast.errors import PieFastError
from pie_fast.exchange.graph import Graph
from pie_fast.exchange.graph_import import choose_nodes, graph_from_dict
from pie_fast.exchange.graph_json import check_graph, graph_to_dict
from pie_fast.exchange.graph_making import PromptText, circuit_graph
from pie_fast.exchange.influence import cumulative, node_influence, prune_links, with_influence
from pie_fast.types import FeatureId


def by_series(graph: Graph) -> np.ndarray:
    """w A + w A^2 + ..., written out on the dense matrix."""
    place = {node.id: n for n, node in enumerate(graph.nodes)}
    n = len(place)
    a, w = np.zeros((n, n)), np.zeros(n)
    for link in graph.links:
        a[place[link.target], place[link.source]] = abs(link.weight)
    sums = a.sum(1, keepdims=True)
    a = np.divide(a, sums, out=np.zeros_like(a), where=sums > 0)
    for node in graph.nodes:
        w[place[node.id]] = node.probability
    if not w.any():
        w = np.asarray([float(node.kind == "logit") for node in graph.nodes])
    total, row = np.zeros(n), w
    for _ in range(n):
        row = row @ a
        total += row
    return total


@given(graphs(weights=tame))
def test_influence_is_the_sum_of_the_series(graph: Graph) -> None:
    assert node_influence(graph) == pytest.approx(by_series(graph), abs=1e-9)


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_cumulative_shares_rank_as_the_values_do(values: list[float]) -> None:
    raw = np.asarray(values, dtype=np.float64)
    shares = cumulative(raw)
    assert np.array_equal(np.argsort(shares, kind="stable"), np.argsort(-raw, kind="stable")) or (
        len(set(shares.tolist())) < len(shares)
    )
    for n, share in enumerate(shares.tolist()):
        at_least = raw[raw >= raw[n]].sum() / (raw.sum() or 1)
        assert share <= at_least + 1e-9
        assert 0 <= share <= 1


@given(graphs(influences=False, weights=tame))
def test_a_graph_with_influences_is_valid_and_chooses_alike(graph: Graph) -> None:
    known = with_influence(graph)
    assert check_graph(graph_to_dict(known)) == ()
    assert all((node.influence is None) == (node.kind == "logit") for node in known.nodes)
    n = len(known.features)
    if n:
        raw = dict(zip((x.id for x in graph.nodes), node_influence(graph).tolist(), strict=True))
        chosen = [raw[node.id] for node in choose_nodes(known, n)]
        assert chosen == sorted(chosen, reverse=True)


@given(graphs(weights=tame), st.floats(0.01, 1))
def test_pruning_keeps_the_strongest_links(graph: Graph, share: float) -> None:
    pruned = prune_links(graph, share)
    assert check_graph(graph_to_dict(pruned)) == ()
    assert set(pruned.links) <= {link for link in graph.links if link.weight}
    assert pruned.features == graph.features and pruned.target == graph.target
    joined = {end for link in pruned.links for end in (link.source, link.target)}
    assert all(node.id in joined for node in pruned.nodes if node.kind == "error")
    if share == 1:
        assert len(pruned.links) == sum(link.weight != 0 for link in graph.links)


def test_only_the_link_that_matters_is_kept() -> None:
    graph = circuit_graph(edges(), PROMPT, slug="x", scan="m")
    kept = prune_links(graph, 0.3)
    assert 0 < len(kept.links) < len(graph.links)
    for bad in (0, 1.5, float("nan")):
        with pytest.raises(PieFastError, match="must be above 0 and at most 1"):
            prune_links(graph, bad)


PROMPT = PromptText((1, 5), ("<bos>", " a"), 9, " b", 0.75)


def edges(**changes: Any) -> SimpleNamespace:
    """Two features of a model of three layers, on two tokens; the second feeds on the first."""
    n, n_layers, n_pos = 2, 3, 2
    errors = np.zeros((n, n_layers, n_pos), np.float32)
    errors[1, 0, 1] = 0.5
    tokens = np.zeros((n, n_pos), np.float32)
    tokens[0, 1] = 2.0
    known = {
        "features": (FeatureId(0, 4), FeatureId(2, 7)),
        "positions": np.asarray([1, 1]),
        "activations": np.asarray([1.5, 2.5], np.float32),
        "effects": np.asarray([[0, 0], [-3, 0]], np.float32),
        "errors": errors,
        "tokens": tokens,
        "to_metric": np.asarray([0.25, 1.0], np.float32),
        "errors_to_metric": np.zeros((n_layers, n_pos), np.float32),
        "tokens_to_metric": np.asarray([0.5, 0], np.float32),
    }
    return SimpleNamespace(**{**known, **changes})


def test_direct_effects_become_a_valid_graph() -> None:
    graph = circuit_graph(
        edges(),
        PROMPT,
        slug="x",
        scan="m",
        labels={FeatureId(2, 7): "a label"},
        groups=[("both", [FeatureId(0, 4), FeatureId(2, 7)]), ("none", [FeatureId(1, 1)])],
        info={"info": {"generator": {"name": "pie-fast"}}},
    )
    document = graph_to_dict(graph)
    assert check_graph(document) == ()
    assert {(k.source, k.target, k.weight) for k in graph.links} == {
        ("E_5_1", "0_4_1", 2.0),
        ("0_4_1", "2_7_1", -3.0),
        ("0_-1_1", "2_7_1", 0.5),
        ("0_4_1", "4_9_1", 0.25),
        ("2_7_1", "4_9_1", 1.0),
        ("E_1_0", "4_9_1", 0.5),
    }
    assert [n.id for n in graph.nodes if n.kind == "error"] == ["0_-1_1"]
    assert graph.supernodes == (("both", ("0_4_1", "2_7_1")),)
    assert graph.by_id["2_7_1"].label == "a label" and graph.by_id["2_7_1"].activation == 2.5
    assert document["nodes"][-1]["clerp"] == 'Output " b" (p=0.750)'
    assert graph_from_dict(document).token_ids == (1, 5)
    # by hand: of the output's 1.75, 1.0 is fed by the second feature, of which 6/7 by the first
    raw = dict(zip((n.id for n in graph.nodes), node_influence(graph).tolist(), strict=True))
    assert raw["2_7_1"] == pytest.approx(0.75 * 1.0 / 1.75)
    assert raw["0_4_1"] == pytest.approx(0.75 * (0.25 / 1.75 + 1.0 / 1.75 * 6 / 7))


def test_a_circuit_without_features_is_a_graph() -> None:
    none = edges(
        features=(),
        positions=np.zeros(0, np.int64),
        activations=np.zeros(0, np.float32),
        effects=np.zeros((0, 0), np.float32),
        errors=np.zeros((0, 3, 2), np.float32),
        tokens=np.zeros((0, 2), np.float32),
        to_metric=np.zeros(0, np.float32),
    )
    graph = circuit_graph(none, PROMPT, slug="x", scan="m")
    assert check_graph(graph_to_dict(graph)) == () and len(graph.links) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"effects": np.zeros((2, 3))}, r"effects has shape \(2, 3\), must be \(2, 2\)"),
        ({"positions": np.zeros(3)}, r"positions has shape \(3,\), must be \(2,\)"),
        ({"tokens": np.zeros((2, 1))}, r"tokens has shape \(2, 1\), must be \(2, 2\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PieFastError, match=message):
        circuit_graph(edges(**changes), PROMPT, slug="x", scan="m")
    with pytest.raises(PieFastError, match="1 ids and 2 tokens"):
        short = PromptText((1,), PROMPT.tokens, 9, " b", 0.75)
        circuit_graph(edges(), short, slug="x", scan="m")
