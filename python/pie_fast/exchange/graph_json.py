"""Write graph JSON for circuit-tracer's viewer and for Neuronpedia, and check such graphs.

Schema version 1, with the newer form of error ids. Numbers are finite; `feature` is
`cantor(layer, index)`, by which circuit-tracer's viewer finds a feature's page.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pie_fast.errors import DumpError, PieFastError
from pie_fast.exchange.checked import parse_json, read_text
from pie_fast.exchange.graph import KINDS, Graph, Node, cantor
from pie_fast.exchange.graph_import import graph_from_dict
from pie_fast.storage import replacing, write_json
from pie_fast.untrusted import shown

SCHEMA_VERSION = 1

#: the list of a folder's graphs, which circuit-tracer's viewer opens first
INDEX = "graph-metadata.json"

#: of probabilities that are printed with few digits
_SLACK = 1e-3

_REQUIRED = ("node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp")
_Q_PARAMS = {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str}
_Q_PARAMS |= {"sg_pos": str}


def graph_to_dict(graph: Graph) -> dict[str, Any]:
    """The JSON value of a graph: `metadata`, `qParams`, `nodes` and `links`."""
    ordered = sorted(graph.nodes, key=_file_order)
    return {
        "metadata": {
            "slug": graph.slug,
            "scan": graph.scan,
            "transcoder_list": [],
            "prompt_tokens": list(graph.prompt_tokens),
            "prompt": graph.prompt,
            "schema_version": SCHEMA_VERSION,
            **graph.info,
        },
        "qParams": {
            "pinnedIds": _pinned(graph),
            "supernodes": [[label, *ids] for label, ids in graph.supernodes],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": [_node(node) for node in ordered],
        "links": [
            {"source": link.source, "target": link.target, "weight": link.weight}
            for link in graph.links
        ],
    }


def write_graph(folder: str | Path, graph: Graph) -> Path:
    """Write `{slug}.json`, and the graph's entry in the folder's list of graphs.

    Args:
        folder: Made if it is not there.
        graph: The graph; it replaces one of the same slug.

    Returns:
        The graph's file.

    Raises:
        PieFastError: The graph breaks a rule of `check_graph`, or the slug is no file name.
        DumpError: The folder's list of graphs is not one.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", graph.slug, re.ASCII):
        raise PieFastError(
            f"slug {graph.slug!r} must be letters, digits, '.', '_' and '-', at most 128, as it "
            "names a file"
        )
    document = graph_to_dict(graph)
    problems = check_graph(document)
    if problems:
        raise PieFastError(f"graph {graph.slug!r} is not valid: {'; '.join(problems[:5])}")
    folder = Path(folder)
    listed = _listed(folder / INDEX)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{graph.slug}.json"
    with replacing(path) as file:
        file.write(json.dumps(document, allow_nan=False).encode())
    others = [entry for entry in listed if entry.get("slug") != graph.slug]
    write_json(folder / INDEX, {"graphs": [*others, document["metadata"]]})
    return path


def check_graph(document: Any) -> tuple[str, ...]:
    """What is wrong with a graph's JSON value; nothing where it is valid.

    Beyond what a reader needs (`graph_from_dict`: ids are unique and well formed, links join nodes
    that are there, go up in layers and not back in the prompt, numbers are finite) this is what
    the viewers rely on: `schema_version`, all of `qParams`, fields that Neuronpedia's schema asks
    for, `jsNodeId`, "(p=" in the label of a logit, logits above all other layers and at the last
    position, exactly one target logit, and probabilities that sum to 1 at most.

    Args:
        document: As `json.load` gives it.
    """
    try:
        graph = graph_from_dict(document)
    except DumpError as error:
        return (str(error),)
    return (
        *_metadata_problems(document),
        *_node_problems(document, graph),
        *_output_problems(graph),
    )


def _metadata_problems(document: Mapping[str, Any]) -> Iterator[str]:
    metadata, q_params = document["metadata"], document.get("qParams")
    if metadata.get("schema_version") != SCHEMA_VERSION:
        found = shown(metadata.get("schema_version"))
        yield f"metadata: schema_version is {found}, must be {SCHEMA_VERSION}"
    threshold = metadata.get("node_threshold")
    if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
        yield f"metadata: node_threshold is {shown(threshold)}, must be null or from 0 to 1"
    if not isinstance(q_params, Mapping):
        yield f"qParams is {shown(q_params)}, must be an object"
        return
    for name, kind in _Q_PARAMS.items():
        if not isinstance(q_params.get(name), kind):
            found = shown(q_params.get(name))
            yield f"qParams: {name} is {found}, must be a {'list' if kind is list else 'text'}"
    ids = {node["node_id"] for node in document["nodes"]}
    pinned = q_params.get("pinnedIds")
    for name in pinned if isinstance(pinned, list) else ():
        if not isinstance(name, str) or name not in ids:
            yield f"qParams: pinnedIds holds {shown(name)}, which is not the node_id of a node"


def _node_problems(document: Mapping[str, Any], graph: Graph) -> Iterator[str]:
    for raw, node in zip(document["nodes"], graph.nodes, strict=True):
        for name in _REQUIRED:
            if name not in raw:
                yield f"node {node.id}: {name} is missing"
        expected = {"feature": _feature(node), "jsNodeId": _js_id(node)}
        for name, value in expected.items():
            if name in raw and raw[name] != value:
                yield f"node {node.id}: {name} is {shown(raw[name])}, must be {value!r}"
        if node.kind == "logit" and "(p=" not in node.label:
            yield f"node {node.id}: clerp is {shown(node.label)}, must hold '(p='"


def _output_problems(graph: Graph) -> Iterator[str]:
    logits = [node for node in graph.nodes if node.kind == "logit"]
    targets = sum(node.is_target for node in logits)
    if targets != 1:
        yield f"{targets} nodes are is_target_logit, must be exactly 1"
    total = math.fsum(node.probability for node in logits)
    if total > 1 + _SLACK:
        yield f"token_prob of the logits sum to {total:.6g}, must be at most 1"
    highest = max((n.layer for n in graph.nodes if n.kind != "logit"), default=-1)
    last = len(graph.prompt_tokens) - 1
    for node in logits:
        if node.layer <= highest:
            yield f"node {node.id}: layer is {node.layer}, must be above all others, {highest}"
        if node.position != last:
            yield f"node {node.id}: ctx_idx is {node.position}, must be the last position, {last}"
    if len({node.layer for node in logits}) > 1:
        yield "logits are of several layers, must be of one"


def _pinned(graph: Graph) -> list[str]:
    """What viewers draw as the subgraph: supernodes show their pinned members only."""
    members = dict.fromkeys(one for _, ids in graph.supernodes for one in ids)
    target = graph.target
    return [*members, target.id] if members and target and target.id not in members else [*members]


def _node(node: Node) -> dict[str, Any]:
    label = node.label
    if node.kind == "logit" and "(p=" not in label:
        label = f'Output "{label}" (p={node.probability:.3f})'
    return {
        "node_id": node.id,
        "feature": _feature(node),
        "layer": "E" if node.kind == "embedding" else str(node.layer),
        "ctx_idx": node.position,
        "feature_type": KINDS[node.kind],
        "token_prob": node.probability,
        "is_target_logit": node.is_target,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": _js_id(node),
        "clerp": label,
        "influence": node.influence,
        "activation": node.activation,
    }


def _feature(node: Node) -> int:
    """The number `feature` of a node."""
    if node.kind == "feature":
        return cantor(node.layer, node.index)
    return node.position if node.kind == "embedding" else node.index


def _js_id(node: Node) -> str:
    """The id that the viewer gives to what may stand at several positions."""
    if node.kind == "feature":
        return f"{node.layer}_{node.index}-0"
    layer = {"embedding": "E", "logit": "L"}.get(node.kind, str(node.layer))
    return f"{layer}_{node.index}-{node.position}"


def _file_order(node: Node) -> tuple[int, int, int, int]:
    """Features, errors, embeddings, logits; the target first of the last."""
    kind = ("feature", "error", "embedding", "logit").index(node.kind)
    if node.kind == "logit":
        return kind, not node.is_target, 0, 0  # the sort is stable: as they were given
    return kind, node.layer, node.index, node.position


def _listed(path: Path) -> list[Mapping[str, Any]]:
    if not path.exists():
        return []
    found = parse_json(str(path), read_text(path))
    graphs = found.get("graphs") if isinstance(found, Mapping) else None
    if not isinstance(graphs, list) or not all(isinstance(g, Mapping) for g in graphs):
        raise DumpError(f"{path}: field 'graphs' is {shown(graphs)}, must be a list of objects")
    return graphs
