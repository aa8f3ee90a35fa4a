"""A list of features of all layers, split by layer once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.errors import PieFastError
from pie_fast.types import FeatureId


class Pool:
    """Features in ascending global id: candidates, or the features that a circuit keeps.

    Attributes:
        global_ids: `[size]` int64, ascending.
        by_layer: One `[n_l]` int64 tensor of indices a layer.
        slots: Where each layer's features stand in `global_ids`.
    """

    def __init__(
        self, global_ids: NDArray[np.int64], n_layers: int, n_features: int, device: torch.device
    ) -> None:
        self.global_ids = np.asarray(global_ids, dtype=np.int64)
        steps = np.diff(self.global_ids)
        if len(steps) and steps.min() <= 0:
            raise PieFastError("features of a pool must ascend by global id, none twice")
        if len(self.global_ids) and not (
            self.global_ids[0] >= 0 and self.global_ids[-1] < n_layers * n_features
        ):
            raise PieFastError(
                f"feature ids {self.global_ids[0]} to {self.global_ids[-1]} are outside 0 to "
                f"{n_layers * n_features - 1}"
            )
        self.n_features = n_features
        edges = np.searchsorted(self.global_ids, np.arange(n_layers + 1) * n_features)
        self.slots = [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
        self.by_layer: list[Tensor] = [
            torch.from_numpy(self.global_ids[slot] - layer * n_features).to(device)
            for layer, slot in enumerate(self.slots)
        ]

    def __len__(self) -> int:
        return len(self.global_ids)

    @property
    def features(self) -> list[FeatureId]:
        """The same as feature ids."""
        return [FeatureId.from_global(g, self.n_features) for g in self.global_ids.tolist()]

    @classmethod
    def of(
        cls, features: Sequence[FeatureId], n_layers: int, n_features: int, device: torch.device
    ) -> Pool:
        """From feature ids in any order."""
        for feature in features:
            if not (0 <= feature.layer < n_layers and 0 <= feature.index < n_features):
                raise PieFastError(
                    f"{feature} is not in the CLT: layers 0 to {n_layers - 1}, indices 0 to "
                    f"{n_features - 1}"
                )
        ids = sorted(f.to_global(n_features) for f in features)
        return cls(np.asarray(ids, dtype=np.int64), n_layers, n_features, device)
