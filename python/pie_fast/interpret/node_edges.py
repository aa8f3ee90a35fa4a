"""The same graph for one prompt, by position: nodes are a feature at a place.

    E[(f, t), (s, t')] = a_s(t') sum over l' < l_f of <d pre_f(t) / d mlp_out_l'(t'), d_{s -> l'}>

What reaches a node that is no feature's comes from the embedded tokens and from the errors, what
the CLT misses of each MLP output. They are circuit-tracer's nodes; its other features are those
that are not kept.

One backward pass serves many nodes of a layer: the prompt is repeated, each row with another node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.interpret.edges import Kept, checked_pool
from pie_fast.model import Replacer, Switches, make_batch
from pie_fast.model.direct import direct_paths
from pie_fast.types import FeatureId

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NodeEdges:
    """Direct effects among the places of kept features on one prompt.

    Attributes:
        features: `[n]`, ascending, each at its positions in order.
        positions: `[n]` int64.
        activations: `[n]` float32, none of them 0.
        effects: `[n, n]` float32, row fed by column.
        errors: `[n, n_layers, n_pos]` float32, of what the CLT misses; 0 at ignored positions.
        tokens: `[n, n_pos]` float32, of the embedded tokens.
        to_metric: `[n]` float32, effects of the nodes on the metric.
        errors_to_metric, tokens_to_metric: `[n_layers, n_pos]` and `[n_pos]` float32.
    """

    features: tuple[FeatureId, ...]
    positions: NDArray[np.int64]
    activations: Floats
    effects: Floats
    errors: Floats
    tokens: Floats
    to_metric: Floats
    errors_to_metric: Floats
    tokens_to_metric: Floats


def node_edges(
    model: Replacer,
    prompt: Prompt,
    ids: Sequence[int] | NDArray[np.int64],
    *,
    gradient: str = "frozen",
    metric: str = "logit-diff",
    batch_size: int = 32,
) -> NodeEdges:
    """Direct effects of every active place of the kept features.

    The errors need all activations of the prompt: the whole encoders run, once.

    Args:
        model: The replacement model.
        prompt: One.
        ids: `[K]` global ids, in any order.
        gradient, metric: As in `pie_fast.interpret.edges.feature_edges`.
        batch_size: Nodes a backward pass, at most.

    Raises:
        BehaviorError: A prompt that the model cannot read, or a metric that is unknown, has no
            gradient here (`kl`) or needs a foil that is missing.
        CheckpointError: A feature that the CLT does not have.
        PieFastError: A feature twice, an unknown rule, or a batch size below 1.
    """
    pool = checked_pool(model, [prompt], ids, metric, batch_size)
    setup = model.prepare(make_batch([prompt], model.device), Switches("zero"))
    counted = setup.counted[0, :, None]
    errors = torch.stack([error[0] * counted for error in setup.error])
    rows = min(batch_size, max(len(prompt) * max(map(len, pool.by_layer)), 1))
    batch = make_batch([prompt] * rows, model.device)
    places = _Places(Kept(model, pool, direct_paths(model, batch, gradient), batch), errors)
    n, n_layers, n_pos = len(places.slots), *errors.shape[:2]
    parts = [np.zeros((n, *each), np.float32) for each in ((n,), (n_layers, n_pos), (n_pos,))]
    for layer in range(model.clt.n_layers):
        for nodes in places.of_layer(layer):
            for part, found in zip(parts, places.fed(layer, nodes), strict=True):
                part[nodes] = found
    effects, of_errors, of_tokens = parts
    return NodeEdges(
        tuple(pool.features[slot] for slot in places.slots),
        np.asarray(places.positions, dtype=np.int64),
        places.at_nodes(places.kept.activations)[0],
        effects,
        of_errors,
        of_tokens,
        *(found[0] for found in places.on_metric(metric)),
    )


class _Places:
    """The nodes, and how gradients become effects of nodes, errors and tokens.

    Args:
        kept: Of one prompt, repeated.
        errors: `[n_layers, n_pos, d_model]`.

    Attributes:
        slots: Of each node its feature's place in the pool, ascending.
        positions: Of each node.
    """

    def __init__(self, kept: Kept, errors: Tensor) -> None:
        self.kept, self.errors = kept, errors
        active = torch.cat([a[0].T != 0 for a in kept.activations])
        self.slots: list[int] = active.nonzero()[:, 0].tolist()
        self.positions: list[int] = active.nonzero()[:, 1].tolist()

    def of_layer(self, layer: int) -> Iterator[list[int]]:
        """The nodes of a layer, no more at once than the prompt is repeated."""
        mine, step = self.kept.pool.slots[layer], len(self.kept.batch)
        nodes = [n for n, slot in enumerate(self.slots) if mine.start <= slot < mine.stop]
        for start in range(0, len(nodes), step):
            yield nodes[start : start + step]

    def fed(self, layer: int, nodes: Sequence[int]) -> Iterator[Floats]:
        """What feeds nodes of one layer: `[len(nodes), ...]` of nodes, errors and tokens."""
        kept, paths = self.kept, self.kept.paths
        first = kept.pool.slots[layer].start
        seed = torch.zeros_like(paths.reads[layer])
        for row, node in enumerate(nodes):
            seed[row, self.positions[node]] = kept.vectors[layer][self.slots[node] - first]
        gradients = kept.gradients(layer, seed, [*paths.writes[:layer], paths.embedded])
        return (part[: len(nodes)] for part in self._effects(gradients))

    def on_metric(self, name: str) -> Iterator[Floats]:
        """The same of the metric, alike in every row."""
        paths = self.kept.paths
        return self._effects(self.kept.of_metric(name, [*paths.writes, paths.embedded]))

    def at_nodes(self, values: Sequence[Tensor]) -> Floats:
        """Per layer `[batch, n_pos, n_l]` at the nodes: `[batch, n]`."""
        whole = torch.cat(list(values), -1)
        found: Floats = whole[:, self.positions, self.slots].float().cpu().numpy()
        return found

    def _effects(self, gradients: Sequence[Tensor]) -> Iterator[Floats]:
        """By gradients of the writes of the first layers, and last of the tokens."""
        *by_writes, by_tokens = gradients
        kept = self.kept
        yield self.at_nodes([kept.effects(n, by_writes) for n in range(len(self.errors))])
        errors = torch.zeros(len(by_tokens), *self.errors.shape[:2], device=by_tokens.device)
        for layer, gradient in enumerate(by_writes):
            errors[:, layer] = (gradient.float() * self.errors[layer].float()).sum(-1)
        yield errors.cpu().numpy()
        yield (by_tokens * kept.paths.embedded.detach()).float().sum(-1).cpu().numpy()
