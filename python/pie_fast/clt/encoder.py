"""One layer's encoder: what a layer reads, as activations of its features.

    pre = x @ weight.T + bias           a = pre where its activation lets it pass, else 0

The weight is held in memory, or read from the file at every use (`lazy`). Either way autograd
keeps only what the active features need, never anything as wide as the dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pie_fast.clt.activation import Activation, ReLU, TopK
from pie_fast.clt.rows import HeldRows, RowCache, Rows

#: pre-activations computed at once; a bound on memory for wide dictionaries and long prompts
BLOCK = 1 << 25


@dataclass(frozen=True)
class Columns:
    """Activations of some of a layer's features; every other feature of the layer is 0.

    Attributes:
        ids: `[n]` int64, ascending indices in the layer's dictionary.
        values: `[..., n]` float, usually `[batch, n_pos, n]`.
    """

    ids: Tensor
    values: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Columns:
        """No features at all, at the places of `like` (`[..., any]`)."""
        return cls(like.new_zeros(0, dtype=torch.int64), like.new_zeros(*like.shape[:-1], 0))

    def at(self, ids: Tensor) -> Tensor:
        """Values of `ids` (`[m]`, ascending): `[..., m]`, 0 where a feature is not held."""
        if len(self.ids) == 0:
            return self.values.new_zeros(*self.values.shape[:-1], len(ids))
        slot = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        return self.values[..., slot] * (self.ids[slot] == ids).to(self.values.dtype)


@dataclass(frozen=True)
class Weight:
    """A layer's encoder weight where it is stored.

    Attributes:
        rows: The matrix that it is a part of.
        first: Its first row there.
        transposed: Stored `[d_model, n_features]`, else `[n_features, d_model]`.
        scale: A factor on it, or on each dimension that it reads (`[d_model]`).
    """

    rows: Rows
    n_features: int
    d_model: int
    first: int = 0
    transposed: bool = False
    scale: float | Tensor = 1.0

    def read(self) -> Tensor:
        """All of it: `[n_features, d_model]`, float32 from a file, as it is from memory."""
        count = self.d_model if self.transposed else self.n_features
        if isinstance(self.rows, HeldRows):  # no copy
            found = self.rows.matrix[self.first : self.first + count]
        else:
            found = self.rows.read(torch.arange(self.first, self.first + count))
        return self._scaled(found.T if self.transposed else found)

    def read_features(self, ids: Tensor) -> Tensor:
        """Those of some features: `[n, d_model]` float32."""
        if self.transposed:  # a feature is a column, in every row of the file
            return self.read()[ids.cpu()]
        return self._scaled(self.rows.read(ids.cpu() + self.first))

    def _scaled(self, weight: Tensor) -> Tensor:
        one = isinstance(self.scale, float) and self.scale == 1.0
        return weight if one else weight * self.scale


class Encoder:
    """One layer's encoder.

    Args:
        weight: `[n_features, d_model]`, or where it is stored.
        bias: `[n_features]`.
        activation: Which pre-activations pass.
        most: Rows of a stored weight that are remembered.
    """

    def __init__(
        self,
        weight: Tensor | Weight,
        bias: Tensor,
        activation: Activation | None = None,
        *,
        most: int = 0,
    ) -> None:
        self.bias = bias
        self.activation = activation or ReLU()
        self._weight = weight
        self._cache = RowCache(self._stored_rows, most)

    @property
    def n_features(self) -> int:
        """Features of the layer."""
        return len(self.bias)

    @property
    def d_model(self) -> int:
        """Width of what it reads."""
        weight = self._weight
        return weight.d_model if isinstance(weight, Weight) else weight.shape[1]

    @property
    def held(self) -> bool:
        """Whether its weight is in memory."""
        return not isinstance(self._weight, Weight)

    def weight(self) -> Tensor:
        """All of it: `[n_features, d_model]`."""
        if isinstance(self._weight, Weight):
            return self._weight.read().to(self.bias.device, self.bias.dtype)
        return self._weight

    def rows(self, ids: Tensor) -> Tensor:
        """Encoder vectors of `ids`, ascending: `[n, d_model]`."""
        return self._cache.rows(ids) if isinstance(self._weight, Weight) else self._weight[ids]

    def hold(self) -> None:
        """Keep the weight in memory from now on."""
        self._weight = self.weight()

    def pre_activations(self, x: Tensor) -> Tensor:
        """`[..., d_model]` -> `[..., n_features]`."""
        return torch.nn.functional.linear(x, self.weight(), self.bias)

    def encode(self, x: Tensor, also: Tensor | None = None) -> Columns:
        """The columns active anywhere in `x`, joined with the ids in `also`."""
        with torch.no_grad():
            weight = self.weight()
            ids, values, passed = self._active(x, weight, also)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return Columns(ids, values)
        linear: Tensor = _Passed.apply(x, values, passed, weight[ids])
        return Columns(ids, linear)

    def encode_only(self, x: Tensor, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Activations of `ids`, ascending, alone: `[..., len(ids)]`.

        Args:
            x: `[..., d_model]`.
            ids: `[n]` int64.
            rows: Their encoder vectors, where the caller has them. A TopK needs all of the layer's.
        """
        if isinstance(self.activation, TopK):
            return self.encode(x, ids).at(ids)
        rows = self.rows(ids) if rows is None else rows
        pre = torch.nn.functional.linear(x, rows, self.bias[ids])
        return torch.where(self.activation.passes(pre, ids), pre, 0.0)

    def _active(
        self, x: Tensor, weight: Tensor, also: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`[n]` ids, and of each position the activations and what passed: `[..., n]`."""
        flat = x.flatten(0, -2)
        active = torch.zeros(self.n_features, dtype=torch.bool, device=x.device)
        if also is not None:
            active[also] = True
        blocks = []
        step = max(BLOCK // self.n_features, 1)
        for start in range(0, max(len(flat), 1), step):
            block = flat[start : start + step]
            pre = torch.nn.functional.linear(block, weight, self.bias)
            passed = self.activation.passes(pre)
            here = (passed & (pre != 0)).any(0)
            active |= here
            ids = (here if also is None else here.index_fill(0, also, True)).nonzero().squeeze(-1)
            blocks.append((ids, torch.where(passed, pre, 0.0)[:, ids], passed[:, ids]))
        ids = active.nonzero().squeeze(-1)
        if len(blocks) == 1:
            _, values, passed = blocks[0]
        else:
            values = torch.cat([Columns(some, v).at(ids) for some, v, _ in blocks])
            passed = torch.cat([_spread(some, p, ids) for some, _, p in blocks])
        shape = *x.shape[:-1], len(ids)
        return ids, values.view(shape), passed.view(shape)

    def _stored_rows(self, ids: Tensor) -> Tensor:
        assert isinstance(self._weight, Weight), "only a stored weight is read by rows"
        return self._weight.read_features(ids).to(self.bias.device, self.bias.dtype)


def _spread(some: Tensor, passed: Tensor, ids: Tensor) -> Tensor:
    """Columns `some` of a bool matrix among the columns `ids`, False elsewhere."""
    out = passed.new_zeros(len(passed), len(ids))
    out[:, torch.searchsorted(ids, some)] = passed
    return out


class _Passed(torch.autograd.Function):
    """Activations as they are; backward through the encoder vectors of the active features."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, passed: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(passed, rows)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        passed, rows = ctx.saved_tensors
        return torch.where(passed, grads[0], 0.0) @ rows, None, None, None
