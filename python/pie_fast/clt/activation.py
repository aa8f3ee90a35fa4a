"""The nonlinearities of transcoders: which pre-activations pass, unchanged, and which become 0.

    ReLU        pre > 0
    JumpReLU    pre > threshold; a BatchTopK at its fixed threshold is one
    TopK        the k largest of the layer at a position, negative ones only where its trainer
                keeps them

What passes keeps its value, so the derivative is 1 there and 0 elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReLU:
    """Passes what is above 0."""

    def passes(self, pre: Tensor, ids: Tensor | None = None) -> Tensor:
        """`[..., n]` bool, of the features `ids` or of all."""
        return pre > 0


@dataclass(frozen=True)
class JumpReLU:
    """Passes what is above its threshold.

    Attributes:
        threshold: `[n_features]`, in the units of pre-activations.
    """

    threshold: Tensor

    def passes(self, pre: Tensor, ids: Tensor | None = None) -> Tensor:
        """`[..., n]` bool, of the features `ids` or of all."""
        return pre > (self.threshold if ids is None else self.threshold[ids])


@dataclass(frozen=True)
class TopK:
    """Passes the k largest, so that no feature's activation is known without all the others.

    Attributes:
        k: How many pass at each position.
        positive: Only what is above 0 passes (crosslayer-transcoder); else any sign
            (circuit-tracer).
    """

    k: int
    positive: bool = False

    def passes(self, pre: Tensor) -> Tensor:
        """`[..., n_features]` bool; of equal ones torch's choice passes."""
        best = pre.topk(min(self.k, pre.shape[-1]), dim=-1).indices
        found = torch.zeros_like(pre, dtype=torch.bool).scatter_(-1, best, True)
        return found & (pre > 0) if self.positive else found


Activation = ReLU | JumpReLU | TopK
