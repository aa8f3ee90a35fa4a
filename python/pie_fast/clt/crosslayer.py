"""The layout of crosslayer-transcoder checkpoints.

    config.yaml              model: {class_path, init_args: {nonlinearity, encoder, decoder,
                             input_standardizer, output_standardizer}, is_folded}
    checkpoint.safetensors   encoder.W [L, d, F]  encoder.b [L, F]  decoder.b [L, d]

    CrosslayerDecoder        decoder.W_{t} [t + 1, F, d]   one a *target* layer, axis 0 the source
    Decoder                  decoder.W [L, F, d]           per layer

    ReLU                     JumpReLU          nonlinearity.theta [1, L, F], at max(theta, 0)
    PerLayerTopK             k in init_args, positive ones only
    BatchTopK                nonlinearity.threshold [1]    \\ a JumpReLU at max(threshold, 0), as
    PerLayerBatchTopK        nonlinearity.threshold [L]    / crosslayer-transcoder infers by layer

Standardizers of dimensions ([L, d]) or layers ([L]) that were not folded before saving are folded
here: with (x - mean) / std before the encoder and y * std + mean after the decoder,

    W / std_in    b - (mean_in / std_in) @ W    W_dec * std_out    b_dec * std_out + mean_out

Those of samples depend on each position and cannot be folded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pie_fast.clt.activation import Activation, JumpReLU, ReLU, TopK
from pie_fast.clt.assembling import Layer, assemble
from pie_fast.clt.config import read_yaml, whole_number, within, yes_or_no
from pie_fast.clt.contract import Clt
from pie_fast.clt.decoder import Slab
from pie_fast.clt.encoder import Weight
from pie_fast.clt.files import Checkpoint, identity_of
from pie_fast.clt.rows import Rows
from pie_fast.errors import CheckpointError
from pie_fast.untrusted import shown

WEIGHTS = "checkpoint.safetensors"

#: crosslayer-transcoder traces the input of `ln_2` and the output of `mlp`
HOOKS = ("hook_resid_mid", "hook_mlp_out")

#: rows of an encoder read at once to fold the mean of its input
_ROWS = 256


def is_crosslayer(folder: Path) -> bool:
    """Whether a folder has this layout."""
    path = folder / "config.yaml"
    return (folder / WEIGHTS).is_file() and path.is_file() and "model" in read_yaml(path)


def read_crosslayer(folder: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> Clt:
    """Read a crosslayer-transcoder folder, standardizers folded or not.

    Raises:
        CheckpointError: A file is broken, of a shape that does not fit, or of a kind that cannot
            be read exactly.
    """
    return assemble(
        _Folder(folder).layers(),
        name=name,
        hooks=HOOKS,
        identity=identity_of([folder / "config.yaml", folder / WEIGHTS]),
        device=device,
        dtype=dtype,
    )


class _Folder:
    """The configuration and the one file of weights."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.yaml"
        self.config = read_yaml(self.path)
        self.file = Checkpoint(folder / WEIGHTS)
        self.kind("model", "CrossLayerTranscoder")
        sizes = self.arguments("encoder")
        self.n_layers = whole_number(self.path, sizes, "n_layers")
        self.n_features = whole_number(self.path, sizes, "d_features")
        self.d_model = whole_number(self.path, sizes, "d_acts")
        self.crosses = self.kind("decoder", "CrosslayerDecoder", "Decoder") == "CrosslayerDecoder"
        model = within(self.path, self.config, "model")
        self.folded = "is_folded" in model and yes_or_no(self.path, model, "is_folded")

    def layers(self) -> list[Layer]:
        """All layers, small things read."""
        n_layers, n_features, d_model = self.n_layers, self.n_features, self.d_model
        weight = self.file.rows("encoder.W", (n_layers, d_model, n_features))
        bias = self.file.read("encoder.b", (n_layers, n_features))
        b_dec = self.file.read("decoder.b", (n_layers, d_model))
        read, write = self.standardizer("input"), self.standardizer("output")
        if read is not None:
            shift = [_applied(weight, n, (read[0] / read[1])[n]) for n in range(n_layers)]
            bias = bias - torch.stack(shift)
        if write is not None:
            b_dec = b_dec * write[1] + write[0]
        activations = self.activations()
        decoders = self.decoders()
        layers = []
        for number in range(n_layers):
            targets = range(number, n_layers if self.crosses else number + 1)
            slabs = tuple(
                Slab(
                    decoders[target],
                    range(n_features),
                    range(target - number, target - number + 1),
                    first=number * n_features,
                    scale=None if write is None else write[1][target].view(1, d_model),
                )
                for target in targets
            )
            layers.append(
                Layer(
                    weight=Weight(
                        weight,
                        n_features,
                        d_model,
                        first=number * d_model,
                        transposed=True,
                        scale=1.0 if read is None else 1 / read[1][number],
                    ),
                    bias=bias[number],
                    activation=activations[number],
                    slabs=slabs,
                    targets=targets,
                    b_dec=b_dec[number],
                    skip=None,
                    source=f"{self.file.path}: layer {number}",
                )
            )
        return layers

    def decoders(self) -> list[Rows]:
        """Of each target the vectors that are written to it, of all sources in turn."""
        n_layers, size = self.n_layers, (self.n_features, self.d_model)
        if not self.crosses:
            return [self.file.rows("decoder.W", (n_layers, *size))] * n_layers
        return [self.file.rows(f"decoder.W_{t}", (t + 1, *size)) for t in range(n_layers)]

    def activations(self) -> list[Activation]:
        """One a layer."""
        n_layers, n_features = self.n_layers, self.n_features
        known = "ReLU", "JumpReLU", "PerLayerTopK", "BatchTopK", "PerLayerBatchTopK"
        kind = self.kind("nonlinearity", *known)
        if kind == "ReLU":
            return [ReLU()] * n_layers
        if kind == "PerLayerTopK":
            k = whole_number(self.path, self.arguments("nonlinearity"), "k")
            if k > n_features:
                raise CheckpointError(f"{self.path}: k is {k}, must be at most {n_features}")
            return [TopK(k, positive=True)] * n_layers
        if kind == "JumpReLU":
            found = self.file.read("nonlinearity.theta", (1, n_layers, n_features))[0]
        else:
            n_thresholds = 1 if kind == "BatchTopK" else n_layers
            found = self.file.read("nonlinearity.threshold", (n_thresholds,))
            found = found[:, None].expand(n_layers, n_features)
        return [JumpReLU(threshold) for threshold in found.clamp(min=0)]

    def standardizer(self, side: str) -> tuple[Tensor, Tensor] | None:
        """`[n_layers, d_model]` mean and standard deviation that are still to be folded."""
        key = f"{side}_standardizer"
        if within(self.path, self.config, "model", "init_args").get(key) is None:
            return None
        if self.folded:
            raise CheckpointError(
                f"{self.path}: is_folded is true, but {key} is there: it must be null"
            )
        side = side.capitalize()
        known = f"Dimensionwise{side}Standardizer", f"Layerwise{side}Standardizer"
        kind = self.kind(key, *known, "Standardizer")
        if kind == "Standardizer":  # the base class, which does nothing
            return None
        shape = (self.n_layers, self.d_model) if kind == known[0] else (self.n_layers,)
        mean, std = (self.file.read(f"{key}.{what}", shape) for what in ("mean", "std"))
        if bool((std <= 0).any()):
            raise CheckpointError(
                f"{self.file.path}: {key}.std has {float(std.min())}, must be above 0"
            )
        whole = self.n_layers, self.d_model
        return mean.view(self.n_layers, -1).expand(whole), std.view(self.n_layers, -1).expand(whole)

    def arguments(self, part: str) -> dict[str, Any]:
        """The `init_args` of a part of the model."""
        return within(self.path, self.config, "model", "init_args", part, "init_args")

    def kind(self, part: str, *known: str) -> str:
        """The class of a part of the model, or of the model itself.

        Raises:
            CheckpointError: None that is known.
        """
        keys = ("model",) if part == "model" else ("model", "init_args", part)
        found = within(self.path, self.config, *keys).get("class_path")
        kind = found.rpartition(".")[2] if isinstance(found, str) else None
        if kind in known:
            return kind
        why = ""
        if kind is not None and kind.startswith("Samplewise"):
            why = ": it scales each position by its own values, which no weights can hold"
        raise CheckpointError(
            f"{self.path}: {'.'.join(keys)}.class_path is {shown(found)}, must be one of "
            f"{', '.join(known)}{why}"
        )


def _applied(weight: Rows, layer: int, x: Tensor) -> Tensor:
    """`x @ W` of a layer, `[d_model]` -> `[n_features]`, a part of W at a time."""
    out = torch.zeros(weight.shape[1], dtype=torch.float64)
    for start in range(0, len(x), _ROWS):
        ids = torch.arange(start, min(start + _ROWS, len(x)))
        out += x[ids].double() @ weight.read(ids + layer * len(x)).double()
    return out.float()
