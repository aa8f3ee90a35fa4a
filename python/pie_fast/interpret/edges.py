"""Which kept features feed which: direct effects among them, so that a circuit is a graph.

    E[f, s] = sum over positions t where f is active, and t' <= t, of
              a_s(t') sum over l' < l_f of <d pre_f(t) / d mlp_out_l'(t'), d_{s -> l'}>

`pre_f` is the pre-activation of the fed feature f. All MLP outputs are constants
(`pie_fast.model.direct`), so a path runs through attention and norms, never through another
feature. By the rule `frozen` it is linear: E[f, s] is what `pre_f` loses when s is set to 0 and
attention, norms and all other activations are held (circuit-tracer's edges). What a feature writes
to its own layer is read from the next one on, so only lower layers feed.

One backward pass a fed feature and batch; rows are read of the kept features only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.behaviors import Prompt, check_prompts
from pie_fast.cost import Cost
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.interpretation import Link
from pie_fast.metrics import check_metric, metric_values
from pie_fast.model import Batch, Pool, Replacer, batches
from pie_fast.model.direct import Direct, direct_paths
from pie_fast.progress import Advance
from pie_fast.types import FeatureId

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Edges:
    """Direct effects among K features.

    Attributes:
        features: The K, ascending.
        effects: `[K, K]` float64, row fed by column, in units of the fed feature's pre-activation:
            mean over prompts of the sum over positions.
        mean_abs: `[K, K]` float64, the mean over prompts of the sum's absolute value.
        to_metric: `[K]` float64, direct effect on the metric, mean over prompts.
        n_prompts: How many prompts.
    """

    features: tuple[FeatureId, ...]
    effects: Floats
    mean_abs: Floats
    to_metric: Floats
    n_prompts: int

    def strongest(self, k: int, n: int) -> tuple[tuple[Link, ...], tuple[Link, ...]]:
        """At most `n` features that feed feature number `k`, and `n` that it feeds.

        Returns:
            `(fed_by, feeds)`, strongest `|effect|` first, ties to the smaller feature; no zeros.
        """
        return self._links(self.effects[k], n), self._links(self.effects[:, k], n)

    def _links(self, effects: Floats, n: int) -> tuple[Link, ...]:
        order = np.argsort(-np.abs(effects), kind="stable")[:n]
        return tuple(Link(self.features[i], float(effects[i])) for i in order if effects[i])


def feature_edges(
    model: Replacer,
    prompts: Sequence[Prompt],
    ids: Sequence[int] | NDArray[np.int64],
    *,
    gradient: str = "frozen",
    metric: str = "logit-diff",
    batch_size: int = 32,
    progress: Advance | None = None,
) -> Edges:
    """Direct effects of kept features on each other and on the metric.

    Args:
        model: The replacement model.
        prompts: Over which they are averaged.
        ids: `[K]` global ids, in any order.
        gradient: What norms and attention do, a rule of `pie_fast.gradients`. Features are
            constants by every rule: an edge is a direct path.
        metric: See `pie_fast.metrics`; for `to_metric`.
        batch_size: Prompts a pass.
        progress: Called with the prompts done, and how many there are.

    Raises:
        BehaviorError: No prompts, one that the model cannot read, or a metric that is unknown, has
            no gradient here (`kl`) or needs foils that are missing.
        CheckpointError: A feature that the CLT does not have.
        PieFastError: A feature twice, an unknown rule, or a batch size below 1.
    """
    pool = checked_pool(model, prompts, ids, metric, batch_size)
    k = len(pool)
    total, magnitude, to_metric = np.zeros((k, k)), np.zeros((k, k)), np.zeros(k)
    for first, batch in batches(prompts, batch_size, model.device):
        paths = direct_paths(model, batch, gradient)
        kept = Kept(model, pool, paths, batch)
        for slot in range(k):
            row = kept.sums(kept.fed(slot))
            total[slot] += row.sum(0)
            magnitude[slot] += np.abs(row).sum(0)
        to_metric += kept.sums(kept.of_metric(metric, paths.writes)).sum(0)
        if progress is not None:
            progress(first + len(batch), len(prompts))
    n = len(prompts)
    return Edges(tuple(pool.features), total / n, magnitude / n, to_metric / n, n)


def checked_pool(
    model: Replacer,
    prompts: Sequence[Prompt],
    ids: Sequence[int] | NDArray[np.int64],
    metric: str,
    batch_size: int,
) -> Pool:
    """The features as a pool, all that was asked for checked; see `feature_edges`."""
    if not prompts:
        raise BehaviorError("there are 0 prompts; at least 1 is needed")
    if batch_size < 1:
        raise PieFastError(f"batch_size is {batch_size}, must be at least 1")
    check_prompts(prompts, model.host.vocab_size, model.host.n_ctx)
    check_metric(metric, for_gradient_at_clean=True)
    pool = model.make_pool(int(i) for i in ids)
    for feature in pool.features:
        model.clt.check_feature(feature.layer, feature.index)
    return pool


class Kept:
    """The kept features on one batch: what they do, and what their writes are worth.

    Args:
        model: The replacement model.
        pool: The features.
        paths: A run of the batch.
        batch: Prompts.

    Attributes:
        activations: Per layer `[batch, n_pos, n_l]` of the pool's features, 0 where a position has
            no features.
        vectors: Per layer `[n_l, d_model]`, their encoder vectors.
    """

    def __init__(self, model: Replacer, pool: Pool, paths: Direct, batch: Batch) -> None:
        self.model, self.pool, self.paths, self.batch = model, pool, paths, batch
        counted = (batch.real & ~model.ignored(batch))[..., None]
        none = model.clt.b_dec[:0]
        self.activations: list[Tensor] = []
        self.vectors: list[Tensor] = []
        self._rows: list[Tensor] = []
        for layer, ids in enumerate(pool.by_layer):
            read = paths.reads[layer].detach()
            if len(ids) == 0:  # perhaps without a transcoder
                self.activations.append(read[..., :0])
                self.vectors.append(none)
                self._rows.append(none[:, None])
                continue
            a = model.clt.encoder(layer).encode_only(read, ids)
            self.activations.append(torch.where(counted, a, 0.0))
            self.vectors.append(model.clt.encoder(layer).rows(ids))
            self._rows.append(model.clt.rows(layer, ids))
        self._lowest = next((n for n, ids in enumerate(pool.by_layer) if len(ids)), 0)

    def fed(self, slot: int) -> list[Tensor]:
        """Gradients of a feature's pre-activations, where it is active, by the lower writes.

        Returns:
            `[batch, n_pos, d_model]` a layer below the feature's; none where nothing can feed it.
        """
        layer = self.pool.features[slot].layer
        column = slot - self.pool.slots[layer].start
        active = self.activations[layer][..., column] != 0
        if layer <= self._lowest or not bool(active.any()):
            return []
        seed = active[..., None] * self.vectors[layer][column]
        return self.gradients(layer, seed, self.paths.writes[:layer])

    def gradients(self, layer: int, seed: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of `<seed, what the layer reads>` by some leaves."""
        self.model.spent += Cost(backward=len(self.batch))
        read = self.paths.reads[layer]
        return list(torch.autograd.grad(read, leaves, seed.to(read.dtype), retain_graph=True))

    def of_metric(self, name: str, leaves: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of the metric by some leaves."""
        logits, batch = self.paths.logits, self.batch
        values = metric_values(name, logits, batch.answer, batch.foil)
        self.model.spent += Cost(backward=len(batch))
        return list(torch.autograd.grad(values.sum(), leaves, retain_graph=True))

    def sums(self, gradients: Sequence[Tensor]) -> Floats:
        """Effects of all kept features on each prompt, summed over positions: `[batch, K]`.

        Args:
            gradients: By the writes of the first layers, `[batch, n_pos, d_model]` each.
        """
        found = np.zeros((len(self.batch), len(self.pool)))
        for layer, slots in enumerate(self.pool.slots[: len(gradients)]):
            found[:, slots] = self.effects(layer, gradients).double().sum(1).cpu().numpy()
        return found

    def effects(self, layer: int, gradients: Sequence[Tensor]) -> Tensor:
        """Effects of one layer's kept features where they are: `[batch, n_pos, n_l]`."""
        a, rows = self.activations[layer], self._rows[layer]
        per_unit = torch.zeros_like(a)
        for target, vectors in zip(self.model.clt.targets(layer), rows.unbind(1), strict=False):
            if target < len(gradients):
                per_unit = per_unit + gradients[target].to(rows.dtype) @ vectors.T
        return a * per_unit
