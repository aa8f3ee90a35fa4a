"""Effects as entries: one for each (prompt, feature, position) that differs from nothing.

This is the content of a feature dump before it is written; what fits in memory is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.attribution import Effects, gate_effects
from pie_fast.behaviors import Prompt
from pie_fast.clt import Columns
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


@dataclass(frozen=True)
class Arriving:
    """Entries on their way from the device to this machine's memory.

    Another process gets them when they have arrived.

    Attributes:
        columns: `[nnz]` each, in the order of the fields of `Entries`.
        copied: When they are there; None where they are already.
    """

    columns: tuple[Tensor, ...]
    copied: torch.cuda.Event | None

    def wait(self) -> Entries:
        """The entries, when they have arrived."""
        if self.copied is not None:
            self.copied.synchronize()
        return Entries(*(column.numpy() for column in self.columns))

    @classmethod
    def here(cls, *columns: NDArray[Any]) -> Arriving:
        """Columns that are there."""
        return cls(tuple(torch.from_numpy(column) for column in columns), None)

    def __reduce__(self) -> tuple[Any, ...]:
        entries = self.wait()
        return Arriving.here, tuple(getattr(entries, field.name) for field in fields(entries))


def entries_of(found: Effects, setup: Setup, n_features: int, first_prompt: int = 0) -> Entries:
    """The entries of one batch at the clean run; its first prompt is number `first_prompt`."""
    return send_entries(found, setup, n_features, first_prompt).wait()


def send_entries(found: Effects, setup: Setup, n_features: int, first_prompt: int = 0) -> Arriving:
    """`entries_of`, not waited for: another thread may, while the device goes on."""
    parts = [
        _of_layer(columns, delta, effect, setup.counted, layer * n_features)
        for layer, (columns, delta, effect) in enumerate(
            zip(found.activations, found.deltas, found.effects, strict=True)
        )
    ]
    prompt, *others = (torch.cat(column) for column in zip(*parts, strict=True))
    # Layer by layer each is in order of prompt, feature, position.
    prompt, order = torch.sort(prompt, stable=True)
    return _sent(prompt + first_prompt, *(column[order] for column in others))


def _of_layer(
    columns: Columns, delta: Tensor, effect: Tensor, counted: Tensor, first_id: int
) -> tuple[Tensor, ...]:
    """Fields of `Entries`, of one layer; features before positions."""
    activation = columns.values.transpose(1, 2)
    delta, effect = delta.expand_as(effect).transpose(1, 2), effect.transpose(1, 2)
    kept = ((activation != 0) | (delta != 0)) & counted[:, None]
    at = kept.nonzero(as_tuple=True)
    prompt, column, position = at
    values = (activation[at].float(), delta[at].float(), effect[at].float())
    return prompt, columns.ids[column] + first_id, position, *values


def _sent(*columns: Tensor) -> Arriving:
    if columns[0].device.type != "cuda":
        return Arriving(tuple(column.cpu() for column in columns), None)
    # Only into pinned memory does a copy run beside the kernels that follow it.
    pinned = [torch.empty_like(c, device="cpu", pin_memory=True) for c in columns]
    here = tuple(to.copy_(c, non_blocking=True) for to, c in zip(pinned, columns, strict=True))
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(columns[0].device))
    return Arriving(here, copied)


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
