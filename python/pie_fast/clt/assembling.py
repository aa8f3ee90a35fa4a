"""From what a reader found of each layer to a `Clt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_fast.clt.activation import Activation, JumpReLU
from pie_fast.clt.contract import Clt
from pie_fast.clt.decoder import Decoder, Slab
from pie_fast.clt.encoder import Encoder, Weight
from pie_fast.errors import CheckpointError

#: bytes of decoder rows, and of encoder rows, that a CLT remembers
CACHE_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class Layer:
    """What is known of one layer before anything large is read.

    Attributes:
        weight: Where its encoder's weight is.
        bias: `[n_features]`.
        activation: Which pre-activations pass.
        slabs: Where its write vectors are.
        targets: The layers that it writes to.
        b_dec: `[d_model]`, the bias of what is written to *this* layer.
        skip: `[d_model, d_model]`, applied as `x @ skip.T`, or None.
        source: What errors call it.
    """

    weight: Weight
    bias: Tensor
    activation: Activation
    slabs: tuple[Slab, ...]
    targets: range
    b_dec: Tensor
    skip: Tensor | None
    source: str


def assemble(
    layers: Sequence[Layer | None],
    *,
    name: str,
    hooks: tuple[str, str],
    identity: str,
    device: torch.device,
    dtype: torch.dtype,
    partial: bool = False,
) -> Clt:
    """Put the layers together; nothing large is read.

    Args:
        layers: One per layer of the model; None for a layer without a transcoder.
        name: Where it came from.
        hooks: Read and write hook.
        identity: See `Clt`.
        device, dtype: Of what the CLT computes.
        partial: See `Clt`.

    Raises:
        CheckpointError: No layer at all, or layers of different widths.
    """
    found = [layer for layer in layers if layer is not None]
    if not found:
        raise CheckpointError(f"{name}: no layer has a transcoder")
    first = found[0].weight
    for layer in found:
        weight = layer.weight
        for what, one, other in (
            ("features", weight.n_features, first.n_features),
            ("d_model", weight.d_model, first.d_model),
        ):
            if one != other:
                raise CheckpointError(
                    f"{layer.source}: {one} {what}, but {found[0].source} has {other}: all layers "
                    "must agree"
                )
    # The same number of rows for every layer: low layers have longer ones.
    writes = sum(len(layer.targets) for layer in found)
    most = CACHE_BYTES // (4 * first.d_model * writes)
    most_encoders = CACHE_BYTES // (4 * first.d_model * len(found))

    def encoder(layer: Layer) -> Encoder:
        activation = layer.activation
        if isinstance(activation, JumpReLU):
            activation = JumpReLU(activation.threshold.to(device, dtype))
        bias = layer.bias.to(device, dtype)
        return Encoder(layer.weight, bias, activation, most=most_encoders)

    def decoder(layer: Layer) -> Decoder:
        return Decoder(
            layer.slabs,
            layer.weight.n_features,
            layer.weight.d_model,
            layer.targets,
            device,
            dtype,
            most=most,
        )

    none = torch.zeros(first.d_model)
    return Clt(
        name=name,
        encoders=tuple(None if layer is None else encoder(layer) for layer in layers),
        decoders=tuple(None if layer is None else decoder(layer) for layer in layers),
        b_dec=torch.stack([none if layer is None else layer.b_dec for layer in layers]).to(
            device, dtype
        ),
        read_hook=hooks[0],
        write_hook=hooks[1],
        identity=identity,
        skips={
            number: layer.skip.to(device, dtype)
            for number, layer in enumerate(layers)
            if layer is not None and layer.skip is not None
        },
        partial=partial,
    )
