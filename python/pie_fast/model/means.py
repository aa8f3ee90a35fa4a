"""Mean activations over prompts: summed batch by batch, wherever each batch ran.

The sums are added up in the order of the batches, in float64, so the means have the same bytes for
any number of workers that measured them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.clt import Columns


@dataclass(frozen=True)
class Means:
    """Mean of every feature over all positions of some prompts that have features.

    Attributes:
        layers: A layer each, values `[1, 1, n]`; features whose mean is 0 are left out.
    """

    layers: tuple[Columns, ...]

    def on(self, device: torch.device) -> tuple[Columns, ...]:
        """The same on a device; where they are there already, no copy."""
        return tuple(Columns(c.ids.to(device), c.values.to(device)) for c in self.layers)


#: what `baseline="mean"` averages over, or that average
MeanOf = Sequence[Prompt] | Means


@dataclass(frozen=True)
class MeanPart:
    """What one batch adds to the means.

    Attributes:
        n_positions: That have features.
        sums: A layer each: `[n]` int64 features, `[n]` float64 sums over these positions.
    """

    n_positions: int
    sums: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, activations: Iterable[Columns], counted: Tensor) -> MeanPart:
        """From activations `[batch, n_pos, n]` and which positions count, `[batch, n_pos]` bool."""
        sums = tuple((c.ids.cpu(), c.values[counted].cpu().double().sum(0)) for c in activations)
        return cls(int(counted.sum()), sums)


class MeanSums:
    """The parts so far.

    Args:
        n_layers, n_features: Of the dictionary.
    """

    def __init__(self, n_layers: int, n_features: int) -> None:
        self._sums = torch.zeros(n_layers, n_features, dtype=torch.float64)
        self._count = 0

    def add(self, part: MeanPart) -> None:
        """The next batch."""
        self._count += part.n_positions
        for layer, (ids, added) in enumerate(part.sums):
            self._sums[layer, ids] += added

    def means(self, like: Tensor) -> Means:
        """Of all that was added, in the dtype and at the place of `like`."""
        means = (self._sums / max(self._count, 1)).to(like.device, like.dtype)
        found = [row.nonzero().squeeze(-1) for row in means]
        return Means(
            tuple(Columns(ids, row[ids][None, None]) for ids, row in zip(found, means, strict=True))
        )
