"""A circuit on one prompt as a graph: its features where they are active, and what joins them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from pie_fast.errors import PieFastError
from pie_fast.exchange.graph import EMBEDDED, Graph, GraphLink, Node
from pie_fast.exchange.influence import with_influence
from pie_fast.types import FeatureId


class NodeEdgesLike(Protocol):
    """Direct effects among `n` places of features on one prompt, as arrays."""

    @property
    def features(self) -> Sequence[FeatureId]:
        """`[n]` the feature of each node."""

    @property
    def positions(self) -> ArrayLike:
        """`[n]` its position."""

    @property
    def activations(self) -> ArrayLike:
        """`[n]` its activation there."""

    @property
    def effects(self) -> ArrayLike:
        """`[n, n]` row fed by column."""

    @property
    def errors(self) -> ArrayLike:
        """`[n, n_layers, n_pos]` of the transcoder's errors on each node."""

    @property
    def tokens(self) -> ArrayLike:
        """`[n, n_pos]` of the embedded tokens on each node."""

    @property
    def to_metric(self) -> ArrayLike:
        """`[n]` of the nodes on the output."""

    @property
    def errors_to_metric(self) -> ArrayLike:
        """`[n_layers, n_pos]` of the errors on the output."""

    @property
    def tokens_to_metric(self) -> ArrayLike:
        """`[n_pos]` of the embedded tokens on the output."""


@dataclass(frozen=True, slots=True)
class PromptText:
    """What a graph says of its prompt and of the output that it explains.

    Attributes:
        token_ids: Of the prompt.
        tokens: The same as text.
        answer_id: The output token that is explained.
        answer: Its text.
        probability: That the model gives it.
    """

    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    answer_id: int
    answer: str
    probability: float


def circuit_graph(
    edges: NodeEdgesLike,
    prompt: PromptText,
    *,
    slug: str,
    scan: str,
    labels: Mapping[FeatureId, str] | None = None,
    groups: Sequence[tuple[str, Sequence[FeatureId]]] = (),
    info: Mapping[str, object] | None = None,
) -> Graph:
    """Put a circuit's direct effects on one prompt into a graph, influences computed.

    Every feature node, token and link that is not 0 is there; an error is where it feeds anything.
    `prune_links` thins the graph.

    Args:
        edges: As `pie_fast.interpret.node_edges.node_edges` gives them.
        prompt: Its tokens, and the output that the effects are on.
        slug: The graph's name.
        scan: The model's or transcoder's name.
        labels: Words for features.
        groups: Features that belong together, by a label: each becomes a supernode of its nodes.
        info: More of the file's `metadata`.

    Raises:
        PieFastError: Arrays that do not fit each other or the prompt.
    """
    n, n_pos = len(edges.features), len(prompt.tokens)
    n_layers = np.asarray(edges.errors_to_metric).shape[0]
    _check_shapes(edges, n, n_layers, n_pos, prompt)
    words = labels or {}
    features = [
        Node("feature", f.layer, f.index, t, words.get(f, ""), activation=a)
        for f, t, a in zip(
            edges.features,
            np.asarray(edges.positions).tolist(),
            np.asarray(edges.activations, np.float64).tolist(),
            strict=True,
        )
    ]
    errors = [Node("error", layer, -1, t) for layer in range(n_layers) for t in range(n_pos)]
    tokens = [Node("embedding", EMBEDDED, i, t) for t, i in enumerate(prompt.token_ids)]
    output = Node(
        "logit",
        n_layers + 1,
        prompt.answer_id,
        n_pos - 1,
        prompt.answer,
        probability=prompt.probability,
        is_target=True,
    )
    sources, targets = [*features, *errors, *tokens], [*features, output]
    links = tuple(_links(sources, targets, _weights(edges)))
    feeding = {link.source for link in links}
    nodes = [*features, *(e for e in errors if e.id in feeding), *tokens, output]
    members = [(label, set(group)) for label, group in groups]
    supernodes = [
        (label, tuple(n.id for n in features if FeatureId(n.layer, n.index) in group))
        for label, group in members
    ]
    graph = Graph(
        slug,
        scan,
        "".join(prompt.tokens),
        prompt.tokens,
        tuple(nodes),
        links,
        tuple(group for group in supernodes if group[1]),
        {"node_threshold": 1.0, **(info or {})},  # viewers prune from here on by influence
    )
    return with_influence(graph)


def _weights(edges: NodeEdgesLike) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows are nodes and the output, columns nodes, errors by layer and position, tokens."""
    parts = [
        (edges.effects, edges.to_metric),
        (edges.errors, edges.errors_to_metric),
        (edges.tokens, edges.tokens_to_metric),
    ]
    columns = []
    for on_nodes, on_output in parts:
        last = np.asarray(on_output, np.float64).reshape(1, -1)
        others = np.asarray(on_nodes, np.float64).reshape(len(edges.features), last.size)
        columns.append(np.concatenate([others, last]))
    return np.concatenate(columns, axis=1)


def _links(sources: Sequence[Node], targets: Sequence[Node], weights: Any) -> Iterator[GraphLink]:
    for row, column in zip(*(axis.tolist() for axis in np.nonzero(weights)), strict=True):
        yield GraphLink(sources[column].id, targets[row].id, float(weights[row, column]))


def _check_shapes(
    edges: NodeEdgesLike, n: int, n_layers: int, n_pos: int, prompt: PromptText
) -> None:
    expected = {
        "positions": (n,),
        "activations": (n,),
        "effects": (n, n),
        "errors": (n, n_layers, n_pos),
        "tokens": (n, n_pos),
        "to_metric": (n,),
        "errors_to_metric": (n_layers, n_pos),
        "tokens_to_metric": (n_pos,),
    }
    for name, shape in expected.items():
        found = np.shape(getattr(edges, name))
        if found != shape:
            raise PieFastError(f"{name} has shape {found}, must be {shape}")
    if len(prompt.token_ids) != n_pos:
        raise PieFastError(f"the prompt has {len(prompt.token_ids)} ids and {n_pos} tokens")
