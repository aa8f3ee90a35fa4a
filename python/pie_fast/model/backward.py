"""Gradient rules as hooks: each hands on the values that it gets, bit by bit.

The bridge offers the scores before the softmax (`hook_attn_scores`), the pattern after it
(`hook_pattern`), the values (`hook_v`) and what norms divide by (`hook_scale`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pie_fast.errors import CheckpointError
from pie_fast.gradients import Rule
from pie_fast.model.host import Hook

#: GIM: temperature of the softmax in the backward pass
TEMPERATURE = 2.0

#: GIM: share of the gradient that flows through the values, and through queries and keys each
THROUGH_VALUES, THROUGH_SCORES = 0.5, 0.25


def backward_hooks(rule: Rule, known: Iterable[str], n_layers: int) -> list[tuple[str, Hook]]:
    """The hooks of a rule.

    Args:
        rule: See `pie_fast.gradients`.
        known: All hook points of the model.
        n_layers: Of the model.
    """
    hooks: list[tuple[str, Hook]] = []
    if not rule.norms:
        # Norms of queries and keys matter where patterns are differentiated only.
        inside = rule.attention != "constant"
        scales = [n for n in known if n.endswith("hook_scale") and (inside or ".attn." not in n)]
        hooks += [(name, Tensor.detach) for name in scales]
    for layer in range(n_layers):
        attention = f"blocks.{layer}.attn"
        if rule.attention == "constant":
            hooks.append((f"{attention}.hook_pattern", Tensor.detach))
        elif rule.attention == "gim":
            softened = _Softened(layer)
            hooks.append((f"{attention}.hook_attn_scores", softened.remember))
            hooks.append((f"{attention}.hook_pattern", softened.pattern))
            hooks.append((f"{attention}.hook_v", _half))
    return hooks


class _Softened:
    """GIM's attention pattern of one layer: it needs the scores that the pattern came from."""

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self._scores: Tensor | None = None

    def remember(self, scores: Tensor) -> None:
        self._scores = scores

    def pattern(self, pattern: Tensor) -> Tensor:
        if self._scores is None or self._scores.shape != pattern.shape:
            raise CheckpointError(
                f"gradient 'gim' needs the attention scores, which layer {self.layer} of this "
                "model does not show in the shape of its pattern"
            )
        out: Tensor = _Softmax.apply(self._scores, pattern.detach())
        self._scores = None
        return out


def _half(values: Tensor) -> Tensor:
    out: Tensor = _Scaled.apply(values, THROUGH_VALUES)
    return out


class _Softmax(torch.autograd.Function):
    """The pattern as it is; backward as if it were softmax(scores / TEMPERATURE).

    With p that softmax the gradient by the scores is p * (g - sum(p * g)), without the 1 /
    TEMPERATURE that its own derivative has: as GIM's authors have it.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, pattern: Tensor) -> Tensor:
        ctx.save_for_backward(scores)
        return pattern.view_as(pattern)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (scores,), (grad,) = ctx.saved_tensors, grads
        soft = torch.softmax(scores.float() / TEMPERATURE, -1).to(grad.dtype)
        flow = soft * (grad - (soft * grad).sum(-1, keepdim=True))
        return (THROUGH_SCORES * flow).to(scores.dtype), None


class _Scaled(torch.autograd.Function):
    """The values as they are; backward scaled."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: float) -> Tensor:
        ctx.share = share
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.share, None
