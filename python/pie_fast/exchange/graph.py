"""An attribution graph of one prompt, as circuit-tracer and Neuronpedia have it.

    embedding   a token of the prompt                       layer -1
    feature     a feature at a position                     its layer
    error       what the transcoder misses there            its layer
    logit       an output token, at the last position       n_layers + 1

Links go from what comes first to what it feeds, always to a higher layer: what a feature writes at
its layer is read from the next one on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

#: kind -> `feature_type` in the file
KINDS = {
    "embedding": "embedding",
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "logit": "logit",
}

EMBEDDED = -1


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        kind: One of `KINDS`.
        layer: -1 of an embedding, `n_layers + 1` of a logit.
        index: The feature's index, -1 of an error, a token id of the others.
        position: Token position.
        label: Words for people; of a logit the output token's text.
        activation: Of a feature there; None if not known.
        influence: Share of all influence that this node and the stronger ones have together, so
            the strongest node has the smallest; None if not known.
        probability: Of a logit's token.
        is_target: Whether it is the logit that the graph explains first.
    """

    kind: str
    layer: int
    index: int
    position: int
    label: str = ""
    activation: float | None = None
    influence: float | None = None
    probability: float = 0.0
    is_target: bool = False

    @property
    def id(self) -> str:
        """Its name in links, with the form of error ids that collides with no feature."""
        layer = "E" if self.kind == "embedding" else str(self.layer)
        return f"{layer}_{self.index}_{self.position}"


@dataclass(frozen=True, slots=True)
class GraphLink:
    """The direct effect of one node on another, by their ids."""

    source: str
    target: str
    weight: float


@dataclass(frozen=True)
class Graph:
    """A graph.

    Attributes:
        slug: Its name, also that of its file.
        scan: The model's or transcoder's name, by which viewers find feature pages.
        prompt: The text.
        prompt_tokens: Its tokens as text.
        nodes: In any order.
        links: In any order.
        supernodes: Groups of nodes for people: a label and ids.
        info: More of `metadata`: how the graph was made.
    """

    slug: str
    scan: str
    prompt: str
    prompt_tokens: tuple[str, ...]
    nodes: tuple[Node, ...]
    links: tuple[GraphLink, ...] = ()
    supernodes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    info: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def by_id(self) -> dict[str, Node]:
        """Nodes by id."""
        return {node.id: node for node in self.nodes}

    @property
    def features(self) -> tuple[Node, ...]:
        """The feature nodes."""
        return tuple(node for node in self.nodes if node.kind == "feature")

    @property
    def target(self) -> Node | None:
        """The logit that is explained first; None where none is marked."""
        return next((node for node in self.nodes if node.is_target), None)

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The prompt's token ids by the embedding nodes; None where one is missing."""
        found = {node.position: node.index for node in self.nodes if node.kind == "embedding"}
        if sorted(found) != list(range(len(self.prompt_tokens))):
            return None
        return tuple(found[position] for position in range(len(self.prompt_tokens)))


def cantor(layer: int, index: int) -> int:
    """One number for a layer and an index, `(l + f)(l + f + 1) / 2 + f`: `feature` in files."""
    return (layer + index) * (layer + index + 1) // 2 + index
