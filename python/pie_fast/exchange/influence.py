"""How much each node of a graph matters for its outputs, as circuit-tracer computes it.

    A[t, s] = |weight of s -> t| / sum of |weights| into t
    influence = w A + w A^2 + ...        w: probabilities of the logits, 0 elsewhere

(circuit-tracer `graph.py` at 4bb8c0e, by its description.) Links go up in layers only, so the sum
ends, and one walk from the outputs down gives it exactly. Files hold the cumulative form.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pie_fast.errors import PieFastError
from pie_fast.exchange.graph import Graph, GraphLink

Floats = NDArray[np.float64]


def node_influence(graph: Graph) -> Floats:
    """Influence of each node on the logits: `[n_nodes]` float64, in the order of the nodes."""
    (reached, _), start = _walk(graph), _start(graph)
    return np.asarray([reached[node.id] - start.get(node.id, 0.0) for node in graph.nodes])


def cumulative(influence: Floats) -> Floats:
    """The share that each entry and all larger ones have together; ties in order: `[n]`."""
    order = np.argsort(-influence, kind="stable")
    total = influence.sum()
    shares = np.cumsum(influence[order]) / (total if total > 0 else 1.0)
    result = np.empty(len(influence))
    result[order] = np.minimum(shares, 1.0)
    return result


def with_influence(graph: Graph) -> Graph:
    """The graph with the cumulative influence of its nodes; logits have none."""
    places = [n for n, node in enumerate(graph.nodes) if node.kind != "logit"]
    shares = cumulative(node_influence(graph)[places])
    nodes = list(graph.nodes)
    for place, share in zip(places, shares.tolist(), strict=True):
        nodes[place] = replace(nodes[place], influence=share)
    return replace(graph, nodes=tuple(nodes))


def prune_links(graph: Graph, share: float) -> Graph:
    """Keep the strongest links that carry a share of all influence, and no error without links.

    A link carries the share of its target's influence (a logit's probability added) that its
    weight has among those into the target. Links as strong as the last one kept are kept too.

    Raises:
        PieFastError: `share` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise PieFastError(f"share is {share}, must be above 0 and at most 1")
    reached, incoming = _walk(graph)
    carried = np.asarray(
        [reached[k.target] * abs(k.weight) / incoming[k.target] for k in graph.links if k.weight]
    )
    links = [link for link in graph.links if link.weight]
    if links and share < 1:
        ordered = np.sort(carried)[::-1]
        enough = np.searchsorted(np.cumsum(ordered), share * ordered.sum())
        least = ordered[min(int(enough), len(ordered) - 1)]
        links = [k for k, score in zip(links, carried.tolist(), strict=True) if score >= least]
    joined = {end for link in links for end in (link.source, link.target)}
    nodes = tuple(node for node in graph.nodes if node.kind != "error" or node.id in joined)
    left = {node.id for node in nodes}
    groups = ((label, tuple(i for i in ids if i in left)) for label, ids in graph.supernodes)
    kept = tuple((label, ids) for label, ids in groups if ids)
    return replace(graph, nodes=nodes, links=tuple(links), supernodes=kept)


def _start(graph: Graph) -> dict[str, float]:
    """Where influence starts: the logits' probabilities, alike where none is known."""
    logits = [node for node in graph.nodes if node.kind == "logit"]
    known = any(node.probability for node in logits)
    return {node.id: node.probability if known else 1.0 for node in logits}


def _walk(graph: Graph) -> tuple[dict[str, float], dict[str, float]]:
    """Influence of each node with its own start, and the sum of |weights| into each."""
    feeding: dict[str, list[GraphLink]] = defaultdict(list)
    incoming: dict[str, float] = defaultdict(float)
    for link in graph.links:
        feeding[link.target].append(link)
        incoming[link.target] += abs(link.weight)
    start = _start(graph)
    reached = {node.id: start.get(node.id, 0.0) for node in graph.nodes}
    for node in sorted(graph.nodes, key=lambda node: -node.layer):
        for link in feeding[node.id]:
            if link.weight:
                part = abs(link.weight) / incoming[node.id]
                reached[link.source] += reached[node.id] * part
    return reached, incoming
