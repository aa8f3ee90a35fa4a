"""The one in-memory form of a transcoder, whatever file or object it came from.

    pre_l   = x_l @ W_enc[l].T + b_enc[l]                 encode, no b_dec subtracted
    a_l     = pre_l where the activation lets it pass, else 0
    out_t   = b_dec[t] + sum over l that write to t of a_l @ W_dec[l -> t]  (+ x_t @ skip[t].T)

A cross-layer transcoder writes to its own layer and all above; per-layer transcoders to their own.
Layers without a transcoder keep the model's MLP.

Few of the dictionary's features are active on a batch, so activations travel as `Columns`: the
ids that are active anywhere in the batch, and their values. Nothing here is ever as wide as the
dictionary except one layer's pre-activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pie_fast.clt.decoder import Decoder
from pie_fast.clt.encoder import Encoder
from pie_fast.errors import CheckpointError


@dataclass(frozen=True)
class Clt:
    """A transcoder of a model.

    Attributes:
        name: Where it came from.
        encoders: One per layer; None where a layer has no transcoder.
        decoders: Likewise.
        b_dec: `[n_layers, d_model]`, the bias of each *target* layer.
        read_hook: Hook point that features read, without its `blocks.{l}.` prefix.
        write_hook: Hook point that they rebuild.
        identity: What dumps record to tell one CLT from another.
        skips: By layer `[d_model, d_model]`, a linear path from what the layer reads to what it
            writes.
        partial: Made of transcoders of single layers, which do not know how many layers the model
            has; those that have none keep the model's MLP.
    """

    name: str
    encoders: Sequence[Encoder | None]
    decoders: Sequence[Decoder | None]
    b_dec: Tensor
    read_hook: str
    write_hook: str
    identity: str
    skips: dict[int, Tensor] = field(default_factory=dict)
    partial: bool = False

    @property
    def n_layers(self) -> int:
        """Number of layers of the model."""
        return len(self.encoders)

    @property
    def covered(self) -> tuple[int, ...]:
        """The layers that have a transcoder."""
        return tuple(layer for layer, one in enumerate(self.encoders) if one is not None)

    @property
    def n_features(self) -> int:
        """Features per layer."""
        return next(one.n_features for one in self.encoders if one is not None)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.b_dec.shape[1]

    @property
    def decoder_bytes(self) -> int:
        """What its decoders would take in memory."""
        return self.n_features * self.d_model * self.n_writes * self.b_dec.dtype.itemsize

    @property
    def n_writes(self) -> int:
        """Write vectors of a feature of every layer together."""
        return sum(len(self.targets(layer)) for layer in self.covered)

    def for_layers(self, n_layers: int) -> Clt:
        """The same for a model of so many layers, those above the last transcoder without one."""
        more = max(n_layers - self.n_layers, 0)
        return replace(
            self,
            encoders=(*self.encoders, *[None] * more),
            decoders=(*self.decoders, *[None] * more),
            b_dec=torch.cat([self.b_dec, self.b_dec.new_zeros(more, self.d_model)]),
        )

    def encoder(self, layer: int) -> Encoder:
        """The encoder of a covered layer."""
        found = self.encoders[layer]
        assert found is not None, f"layer {layer} has no transcoder"
        return found

    def targets(self, layer: int) -> range:
        """The layers that features of `layer` write to."""
        found = self.decoders[layer]
        return range(0) if found is None else found.targets

    def rows(self, layer: int, ids: Tensor) -> Tensor:
        """Write vectors of `ids`, ascending, in `layer`: `[n, n_targets, d_model]`."""
        return self._decoder(layer).rows(ids)

    def decode(self, layer: int, ids: Tensor, values: Tensor) -> Tensor:
        """`values` (`[..., n]` of `ids`, ascending) as writes: `[..., n_targets, d_model]`."""
        return self._decoder(layer).decode(ids, values)

    def writes(self, layer: int, ids: Tensor, values: Tensor) -> list[tuple[int, Tensor]]:
        """As `decode`, by target layer: `[..., d_model]` each."""
        return list(
            zip(self.targets(layer), self.decode(layer, ids, values).unbind(-2), strict=True)
        )

    def skip(self, layer: int, x: Tensor) -> Tensor | None:
        """What the linear path adds to the write of `layer`, which reads `x`; None for nothing."""
        path = self.skips.get(layer)
        return None if path is None else x @ path.T

    def hold(self, *, encoders: bool, decoders: bool) -> None:
        """Keep weights in memory from now on."""
        for encoder in self.encoders:
            if encoders and encoder is not None:
                encoder.hold()
        for decoder in self.decoders:
            if decoders and decoder is not None:
                decoder.hold()

    def check_feature(self, layer: int, index: int) -> None:
        """Refuse a feature that the dictionary does not have.

        Raises:
            CheckpointError: Layer or index out of range, or the layer has no transcoder.
        """
        if not (0 <= layer < self.n_layers and 0 <= index < self.n_features):
            raise CheckpointError(
                f"L{layer}:{index} is not in {self.name}: layers 0 to {self.n_layers - 1}, "
                f"indices 0 to {self.n_features - 1}"
            )
        if self.encoders[layer] is None:
            raise CheckpointError(
                f"L{layer}:{index} is not in {self.name}, which has layers {list(self.covered)}"
            )

    def _decoder(self, layer: int) -> Decoder:
        found = self.decoders[layer]
        assert found is not None, f"layer {layer} has no transcoder"
        return found
