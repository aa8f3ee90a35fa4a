"""The one in-memory form of a CLT, whatever file it came from.

    pre_l   = x_l @ W_enc[l].T + b_enc[l]                 encode, no b_dec subtracted
    a_l     = relu(pre_l)  or  pre_l * (pre_l > threshold[l])
    out_t   = b_dec[t] + sum over l <= t of a_l @ W_dec[l][:, t - l]

Few of the dictionary's features are active on a batch, so activations travel as `Columns`: the
ids that are active anywhere in the batch, and their values. Nothing here is ever as wide as the
dictionary except one layer's pre-activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pie_fast.errors import CheckpointError


@dataclass(frozen=True)
class Columns:
    """Activations of some of a layer's features; every other feature of the layer is 0.

    Attributes:
        ids: `[n]` int64, ascending indices in the layer's dictionary.
        values: `[..., n]` float, usually `[batch, n_pos, n]`.
    """

    ids: Tensor
    values: Tensor

    def at(self, ids: Tensor) -> Tensor:
        """Values of `ids` (`[m]`, ascending): `[..., m]`, 0 where a feature is not held."""
        if len(self.ids) == 0:
            return self.values.new_zeros(*self.values.shape[:-1], len(ids))
        slot = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        return self.values[..., slot] * (self.ids[slot] == ids).to(self.values.dtype)


@dataclass(frozen=True)
class Encoder:
    """One layer's encoder.

    Attributes:
        weight: `[n_features, d_model]`.
        bias: `[n_features]`.
        threshold: `[n_features]` of a JumpReLU, or None for a ReLU.
    """

    weight: Tensor
    bias: Tensor
    threshold: Tensor | None

    def pre_activations(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
        """`[..., d_model]` -> `[..., n_features]`, or `[..., len(ids)]`."""
        if ids is None:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        return torch.nn.functional.linear(x, self.weight[ids], self.bias[ids])

    def activate(self, pre: Tensor, ids: Tensor | None = None) -> Tensor:
        """The nonlinearity; the derivative of a JumpReLU is 1 above its threshold."""
        if self.threshold is None:
            return torch.relu(pre)
        threshold = self.threshold if ids is None else self.threshold[ids]
        return torch.where(pre > threshold, pre, 0.0)

    def encode(self, x: Tensor, also: Tensor | None = None) -> Columns:
        """The columns active anywhere in `x`, joined with the ids in `also`."""
        acts = self.activate(self.pre_activations(x))
        active = acts.detach().flatten(0, -2).any(0)
        if also is not None:
            active[also] = True
        ids = active.nonzero().squeeze(-1)
        return Columns(ids, acts[..., ids])

    def encode_only(self, x: Tensor, ids: Tensor) -> Tensor:
        """Activations of `ids` alone: `[..., len(ids)]`."""
        return self.activate(self.pre_activations(x, ids), ids)


#: gathers decoder rows: (layer, ids [n]) -> [n, n_layers - layer, d_model]
RowReader = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Clt:
    """A cross-layer transcoder.

    Attributes:
        name: Where it came from.
        encoders: One per layer.
        b_dec: `[n_layers, d_model]`, the bias of each *target* layer.
        read_rows: Gathers decoder rows of a layer.
        read_hook: Hook point that features read, without its `blocks.{l}.` prefix.
        write_hook: Hook point that they rebuild.
        identity: What dumps record to tell one CLT from another.
    """

    name: str
    encoders: tuple[Encoder, ...]
    b_dec: Tensor
    read_rows: RowReader
    read_hook: str
    write_hook: str
    identity: str
    _decoders: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.encoders)

    @property
    def n_features(self) -> int:
        """Features per layer."""
        return self.encoders[0].weight.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.encoders[0].weight.shape[1]

    def rows(self, layer: int, ids: Tensor) -> Tensor:
        """Write vectors of `ids` in `layer`: `[n, n_layers - layer, d_model]`."""
        whole = self._decoders.get(layer)
        return self.read_rows(layer, ids) if whole is None else whole[ids]

    def decode(self, layer: int, ids: Tensor, values: Tensor) -> Tensor:
        """`values` (`[..., n]` of `ids`) as writes: `[..., n_layers - layer, d_model]`."""
        whole = self._decoders.get(layer)
        # Gathering most of a dictionary costs more than multiplying by all of it.
        if whole is not None and 2 * len(ids) > len(whole):
            values = values.new_zeros(*values.shape[:-1], len(whole)).index_copy(-1, ids, values)
            rows = whole
        else:
            rows = self.rows(layer, ids)
        writes = values @ rows.flatten(1)
        return writes.view(*writes.shape[:-1], self.n_layers - layer, self.d_model)

    def hold_decoders(self) -> None:
        """Keep every decoder in memory: for CLTs that fit, many small passes get faster."""
        every = torch.arange(self.n_features, device=self.b_dec.device)
        for layer in range(self.n_layers):
            self._decoders[layer] = self.read_rows(layer, every)

    def check_feature(self, layer: int, index: int) -> None:
        """Refuse a feature that the dictionary does not have.

        Raises:
            CheckpointError: Layer or index out of range.
        """
        if not (0 <= layer < self.n_layers and 0 <= index < self.n_features):
            raise CheckpointError(
                f"L{layer}:{index} is not in {self.name}: layers 0 to {self.n_layers - 1}, "
                f"indices 0 to {self.n_features - 1}"
            )
