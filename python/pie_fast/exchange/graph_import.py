"""Read graph JSON of circuit-tracer and Neuronpedia, and choose features of it.

What is read is checked as far as it is used. Both forms of error ids are known: `0_{layer}_{pos}`
of circuit-tracer until mid-2026, which can collide with features of layer 0, and
`{layer}_-1_{pos}`. A node's layer and index come from its id; the number `feature` must agree with
them (`cantor`) from schema version 1 on.

circuit-tracer's `influence` is cumulative: the share that a node and all stronger ones have
together. The most influential nodes have the *smallest* values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pie_fast.errors import BudgetError, DumpError
from pie_fast.exchange.checked import Record, first_double, is_text, parse_json, read_text
from pie_fast.exchange.graph import EMBEDDED, KINDS, Graph, GraphLink, Node, cantor
from pie_fast.exchange.influence import node_influence
from pie_fast.types import FeatureId

_KIND_OF = {feature_type: kind for kind, feature_type in KINDS.items()}
_IDS = {
    "embedding": re.compile(r"E_(\d{1,15})_(\d{1,15})", re.ASCII),
    "feature": re.compile(r"(\d{1,9})_(\d{1,15})_(\d{1,15})", re.ASCII),
    "error": re.compile(r"(\d{1,9})_(-1|\d{1,9})_(\d{1,15})", re.ASCII),
    "logit": re.compile(r"(\d{1,9})_(\d{1,15})_(\d{1,15})", re.ASCII),
}
_FORMS = {
    "embedding": "E_{token}_{ctx_idx}",
    "feature": "{layer}_{index}_{ctx_idx}",
    "error": "{layer}_-1_{ctx_idx} or 0_{layer}_{ctx_idx}",
    "logit": "{layer}_{token}_{ctx_idx}",
}
#: of `metadata`, what a `Graph` holds in fields of its own
_OWN = ("slug", "scan", "prompt", "prompt_tokens", "schema_version", "transcoder_list")


def read_graph(path: str | Path) -> Graph:
    """Read a graph.

    Args:
        path: JSON, gzipped or not.

    Raises:
        DumpError: The file is no graph, or nodes and links do not fit each other; the message
            names file, node or link, field, value and what is valid.
    """
    return graph_from_dict(parse_json(str(path), read_text(path)), where=str(path))


def graph_from_dict(document: Any, *, where: str = "graph") -> Graph:
    """A graph from its JSON value.

    Args:
        document: The value.
        where: What errors call it.

    Raises:
        DumpError: As `read_graph`.
    """
    if not isinstance(document, Mapping):
        raise DumpError(f"{where}: expected an object with metadata, nodes and links")
    top, needed = Record(where, document), ("metadata", "nodes", "links")
    if document.keys().isdisjoint(needed):
        listed = " beside it, which it lists" if "graphs" in document else ""
        raise DumpError(
            f"{where} is not an attribution graph (it has no {', '.join(needed)}); give a "
            f"SLUG.json{listed or ', as `pie-fast export --to circuit-tracer` writes it'}"
        )
    for name in needed:
        if document.get(name) is None:
            top.refuse(name, "there")
    metadata, q_params = top.mapping("metadata"), top.mapping("qParams")
    tokens = metadata.texts("prompt_tokens")
    exact = "schema_version" in metadata.fields and metadata.integer("schema_version") >= 1
    records = top.records("nodes")
    nodes = [_node(record, len(tokens), exact) for record in records]
    named = _by_id(records, nodes)
    links = tuple(_link(record, named) for record in top.records("links"))
    double = first_double([(link.source, link.target) for link in links])
    if double is not None:
        first, second = double
        raise DumpError(f"{where}: links {first} and {second} join the same nodes")
    return Graph(
        slug=metadata.text("slug"),
        scan=metadata.text("scan"),
        prompt=metadata.text("prompt"),
        prompt_tokens=tokens,
        nodes=tuple(nodes),
        links=links,
        supernodes=_supernodes(q_params, named),
        info={key: value for key, value in metadata.fields.items() if key not in _OWN},
    )


def choose_nodes(graph: Graph, k: int) -> tuple[Node, ...]:
    """The `k` most influential feature nodes, strongest first.

    Influences are the graph's own. Where one is missing, and between equals, those count that
    follow from the links; then the smaller layer, index and position.

    Raises:
        BudgetError: The graph has fewer feature nodes, or `k` is below 1.
    """
    ordered = _ordered(graph)
    _check_budget(k, len(ordered), "feature nodes")
    return tuple(ordered[:k])


def choose_features(graph: Graph, k: int) -> tuple[FeatureId, ...]:
    """The `k` features with the most influential nodes, each once, strongest first.

    Raises:
        BudgetError: The graph has fewer features, or `k` is below 1.
    """
    found = tuple(dict.fromkeys(FeatureId(n.layer, n.index) for n in _ordered(graph)))
    _check_budget(k, len(found), "features")
    return found[:k]


def _ordered(graph: Graph) -> list[Node]:
    """Feature nodes by influence, then by what the links say, then by id.

    Nodes without any influence share the value of the weakest one that has some.
    """
    by_links = dict(zip((n.id for n in graph.nodes), node_influence(graph).tolist(), strict=True))
    known = all(node.influence is not None for node in graph.features)

    def order(node: Node) -> tuple[float, float, int, int, int]:
        influence = node.influence if known and node.influence is not None else 0.0
        return influence, -by_links[node.id], node.layer, node.index, node.position

    return sorted(graph.features, key=order)


def _check_budget(k: int, n: int, what: str) -> None:
    if not 1 <= k <= n:
        raise BudgetError(f"budget {k} is not from 1 to {n}, the {what} of the graph")


def _node(record: Record, n_tokens: int, exact: bool) -> Node:
    node_id, feature_type = record.text("node_id"), record.text("feature_type")
    record = Record(f"{record.where} ({node_id[:40]!r})", record.fields)
    kind = _KIND_OF.get(feature_type)
    if kind is None:
        record.refuse("feature_type", f"one of {', '.join(map(repr, _KIND_OF))}")
    layer, position = _layer(record, kind), record.integer("ctx_idx")
    if position >= n_tokens:
        record.refuse("ctx_idx", f"below {n_tokens}, the number of prompt_tokens")
    index = _index(record, kind, node_id, layer, position)
    if exact and kind == "feature" and record.integer("feature") != cantor(layer, index):
        record.refuse("feature", f"{cantor(layer, index)}, the number of L{layer}:{index}")
    probability = record.number("token_prob", optional=True) or 0.0
    if probability < 0:  # above 1 where the target is no token but a direction of one's own
        record.refuse("token_prob", "at least 0")
    target = record.fields.get("is_target_logit", False)
    if not isinstance(target, bool) or (target and kind != "logit"):
        record.refuse("is_target_logit", "true or false, and true of logits only")
    return Node(
        kind=kind,
        layer=layer,
        index=index,
        position=position,
        label=record.text("clerp", default=""),
        activation=record.number("activation", optional=True),
        influence=record.number("influence", optional=True),
        probability=probability,
        is_target=target,
    )


def _layer(record: Record, kind: str) -> int:
    value = record.fields.get("layer")
    if kind == "embedding":
        if value != "E":
            record.refuse("layer", "'E' of an embedding")
        return EMBEDDED
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value, re.ASCII):
        return int(value)
    if isinstance(value, str):
        record.refuse("layer", "a layer's number")
    return record.integer("layer")


def _index(record: Record, kind: str, node_id: str, layer: int, position: int) -> int:
    """The index that an id holds; refused where the id is of another layer or position."""
    match = _IDS[kind].fullmatch(node_id)
    if match is not None:
        *first, last = match.groups()
        valid = int(last) == position
        if kind == "error":
            valid &= tuple(first) in {(str(layer), "-1"), ("0", str(layer))}
        elif kind != "embedding":
            valid &= int(first[0]) == layer
        if valid:
            return -1 if kind == "error" else int(first[-1])
    record.refuse("node_id", f"of the form {_FORMS[kind]} with its own layer and ctx_idx")


def _by_id(records: list[Record], nodes: list[Node]) -> dict[str, Node]:
    """Nodes by the ids of the file; an old error id may be that of a feature too."""
    ids = [str(record.fields["node_id"]) for record in records]
    for names in (ids, [node.id for node in nodes]):
        double = first_double(names)
        if double is not None:
            first, second = (f"{records[place].where} ({nodes[place].kind})" for place in double)
            raise DumpError(f"{second}: field 'node_id' {names[double[0]]!r} is also of {first}")
    return dict(zip(ids, nodes, strict=True))


def _link(record: Record, named: Mapping[str, Node]) -> GraphLink:
    ends = []
    for name in ("source", "target"):
        node = named.get(record.text(name))
        if node is None:
            record.refuse(name, "the node_id of a node")
        ends.append(node)
    source, target = ends
    if source.layer >= target.layer:
        record.refuse("target", f"of a layer above {source.layer}, the source's")
    if source.position > target.position:
        record.refuse("target", f"at ctx_idx {source.position}, the source's, or later")
    weight = record.number("weight")
    assert weight is not None, "not optional"
    return GraphLink(source.id, target.id, weight)


def _supernodes(
    q_params: Record, named: Mapping[str, Node]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    groups = q_params.fields.get("supernodes") or []
    found = []
    if not isinstance(groups, list) or not all(map(_is_group, groups)):
        q_params.refuse("supernodes", "a list of lists: a label and node ids")
    for label, *ids in groups:
        for node_id in ids:
            if node_id not in named:
                raise DumpError(
                    f"{q_params.where}: supernode {label[:40]!r} names {node_id[:40]!r}, "
                    "which is not the node_id of a node"
                )
        found.append((label, tuple(named[node_id].id for node_id in ids)))
    return tuple(found)


def _is_group(value: object) -> bool:
    texts = isinstance(value, list) and all(isinstance(v, str) and is_text(v) for v in value)
    return texts and bool(value)
