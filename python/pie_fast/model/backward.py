"""Gradient rules as hooks: each hands on the values that it gets, bit by bit.

The bridge offers the scores before the softmax (`hook_attn_scores`), the pattern after it
(`hook_pattern`), the values (`hook_v`) and what norms divide by (`hook_scale`). RMSNorms it leaves
to HuggingFace's module, but for those whose scale is a constant: they it computes itself, and there
the module's values are put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pie_fast.errors import CheckpointError
from pie_fast.gradients import Rule
from pie_fast.model.host import Hook

#: GIM: temperature of the softmax in the backward pass
TEMPERATURE = 2.0

#: GIM: share of the gradient that flows through the values, and through queries and keys each
THROUGH_VALUES, THROUGH_SCORES = 0.5, 0.25


def backward_hooks(rule: Rule, norms: Mapping[str, Any], n_layers: int) -> list[tuple[str, Hook]]:
    """The hooks of a rule; they go before all others, which are to see what they hand on.

    Args:
        rule: See `pie_fast.gradients`.
        norms: All norms of the bridge, by name.
        n_layers: Of the model.
    """
    hooks: list[tuple[str, Hook]] = []
    if not rule.norms:
        # Norms of queries and keys matter where patterns are differentiated only.
        inside = rule.attention != "constant"
        for name, norm in norms.items():
            if inside or ".attn." not in name:
                hooks += _constant_scale(name, norm)
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


def straight_through(values: Tensor, gradient: Tensor) -> Tensor:
    """One tensor's values, exactly, with the gradient of another that is equal or close to it."""
    return values.detach() + (gradient - gradient.detach())


def _constant_scale(name: str, norm: Any) -> list[tuple[str, Hook]]:
    hooks: list[tuple[str, Hook]] = [(f"{name}.hook_scale", Tensor.detach)]
    if norm.use_native_layernorm_autograd:
        kept = _OwnValues(norm.original_component)
        hooks += [(f"{name}.hook_in", kept.remember), (f"{name}.hook_out", kept.put_back)]
    return hooks


class _OwnValues:
    """The output of HuggingFace's norm with the gradient of what the bridge computed in its place.

    The two differ by rounding, which in bfloat16 is seen.
    """

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm
        self._read: Tensor | None = None

    def remember(self, x: Tensor) -> None:
        self._read = x.detach()

    def put_back(self, out: Tensor) -> Tensor:
        assert self._read is not None, "a norm reads before it returns"
        with torch.no_grad():
            own = self.norm(self._read)
        self._read = None
        through: Tensor = _Through.apply(out, own)
        return through


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


class _Through(torch.autograd.Function):
    """Other values; backward as if they were the given ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Scaled(torch.autograd.Function):
    """The values as they are; backward scaled."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: float) -> Tensor:
        ctx.share = share
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.share, None
