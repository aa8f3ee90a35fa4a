"""Effects as entries: one for each (prompt, feature, position) that differs from nothing.

This is the content of a feature dump before it is written; what fits in memory is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from pie_fast.attribution import Effects, gate_effects
from pie_fast.behaviors import Prompt
from pie_fast.model import Replacer, Setup, Switches, batches


@dataclass(frozen=True)
class Entries:
    """Where a feature is active or has a baseline, and what that does to the metric.

    Ordered by prompt, then feature, then position.

    Attributes:
        prompt: `[nnz]` int64.
        feature: `[nnz]` int64, global ids.
        position: `[nnz]` int64.
        activation: `[nnz]` float32.
        delta: `[nnz]` float32, activation minus baseline.
        effect: `[nnz]` float32, gradient times delta.
    """

    prompt: NDArray[np.int64]
    feature: NDArray[np.int64]
    position: NDArray[np.int64]
    activation: NDArray[np.float32]
    delta: NDArray[np.float32]
    effect: NDArray[np.float32]

    @property
    def active(self) -> NDArray[np.int64]:
        """Global ids of features that differ from their baseline anywhere, ascending."""
        return np.unique(self.feature[self.delta != 0])

    def prompt_ptr(self, n_prompts: int) -> NDArray[np.int64]:
        """Where each prompt's entries start: `[n_prompts + 1]`."""
        return np.searchsorted(self.prompt, np.arange(n_prompts + 1))

    def take(self, which: NDArray[np.bool_] | slice) -> Entries:
        """Some of the entries, in order."""
        return Entries(*(getattr(self, field.name)[which] for field in fields(self)))

    def per_prompt(self, features: NDArray[np.int64], n_prompts: int) -> NDArray[np.float64]:
        """Effects summed over positions; `features` ascending: `[len(features), n_prompts]`."""
        out = np.zeros((len(features), n_prompts))
        if len(features):
            slot = np.minimum(np.searchsorted(features, self.feature), len(features) - 1)
            mine = features[slot] == self.feature
            np.add.at(out, (slot[mine], self.prompt[mine]), self.effect[mine].astype(np.float64))
        return out


def entries_of(found: Effects, setup: Setup, n_features: int, first_prompt: int = 0) -> Entries:
    """The entries of one batch at the clean run; its first prompt is number `first_prompt`."""
    layers = range(len(found.effects))
    ids = torch.cat([found.activations[layer].ids + layer * n_features for layer in layers])
    # [batch, n_pos, n] of every layer side by side, features before positions
    activation = torch.cat([c.values for c in found.activations], 2).transpose(1, 2)
    delta = torch.cat([d.expand_as(e) for d, e in zip(found.deltas, found.effects, strict=True)], 2)
    delta, effect = delta.transpose(1, 2), torch.cat(found.effects, 2).transpose(1, 2)
    kept = ((activation != 0) | (delta != 0)) & setup.counted[:, None]
    prompt, column, position = kept.nonzero(as_tuple=True)
    return Entries(
        prompt=(prompt + first_prompt).cpu().numpy(),
        feature=ids[column].cpu().numpy(),
        position=position.cpu().numpy(),
        activation=activation[kept].float().cpu().numpy(),
        delta=delta[kept].float().cpu().numpy(),
        effect=effect[kept].float().cpu().numpy(),
    )


def all_entries(
    model: Replacer,
    prompts: Sequence[Prompt],
    metric: str,
    switches: Switches,
    *,
    gradient: str = "full",
    batch_size: int = 32,
    mean_of: Sequence[Prompt] | None = None,
) -> Entries:
    """Run `prompts` forward and backward and keep every entry in memory.

    `baseline="mean"` averages over `mean_of`, over `prompts` when None.
    """
    parts = []
    for first, batch in batches(prompts, batch_size, model.device):
        setup = model.prepare(batch, switches, mean_of or prompts)
        found = gate_effects(model, setup, metric, gradient=gradient)
        parts.append(entries_of(found, setup, model.clt.n_features, first))
    return Entries(
        *(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(Entries))
    )
