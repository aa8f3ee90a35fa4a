"""The layout of CLT-Forge checkpoints.

    clt_cfg.json                      n_layers L, d_in d, d_latent F, cross_layer_decoders
    clt_weights.safetensors           or rank{r}_clt_weights.safetensors, sharded by features

    W_enc [L, d, F]   b_enc [L, F]   log_threshold [L, F]    JumpReLU at exp(log_threshold)
    W_dec [N, F, d]   b_dec [N, d]   N = L (L + 1) / 2 pairs of source l and target t, source-major
    estimated_norm_scaling_factor_in [L], estimated_norm_scaling_factor_out [L]

Without `cross_layer_decoders` N is L. A shard has its own part of the F features; biases of
outputs and scaling factors are the same in all, and taken from rank 0, as CLT-Forge does.

CLT-Forge feeds `x * factor_in` and rebuilds `y * factor_out`; both are folded here:

    W_enc[l] * factor_in[l]   W_dec[l -> t] / factor_out[t]   b_dec[t] = sum over l / factor_out[t]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pie_fast.clt.activation import JumpReLU
from pie_fast.clt.assembling import Layer, assemble
from pie_fast.clt.config import read_json, whole_number, yes_or_no
from pie_fast.clt.contract import Clt
from pie_fast.clt.decoder import Slab
from pie_fast.clt.encoder import Weight
from pie_fast.clt.files import Checkpoint, identity_of
from pie_fast.clt.rows import Joined, Rows
from pie_fast.errors import CheckpointError

#: the configuration, by which the layout is known
CONFIG = "clt_cfg.json"

WEIGHTS = "clt_weights.safetensors"

#: in CLT-Forge's code, not in the checkpoint; HookedTransformer's names, see `Host.hook_point`
HOOKS = ("ln2.hook_normalized", "hook_mlp_out")

_FACTOR = "estimated_norm_scaling_factor_"


def read_clt_forge(folder: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> Clt:
    """Read a CLT-Forge checkpoint, whole or sharded by features.

    Raises:
        CheckpointError: A file is missing, broken, or of a shape that does not fit the others.
    """
    path = folder / CONFIG
    config = read_json(path)
    shards = [_Shard(file, path, config) for file in _files(folder, path, config)]
    n_features = whole_number(path, config, "d_latent")
    found = sum(shard.n_features for shard in shards)
    if found != n_features:
        raise CheckpointError(
            f"{path}: d_latent is {n_features}, but "
            f"{', '.join(shard.file.path.name for shard in shards)} hold {found} features: a shard "
            "is missing, or of another checkpoint"
        )
    return assemble(
        _layers(shards, n_features),
        name=name,
        hooks=HOOKS,
        identity=identity_of([path, *(shard.file.path for shard in shards)]),
        device=device,
        dtype=dtype,
    )


class _Shard:
    """One file: all layers of some of the features."""

    def __init__(self, where: Path, path: Path, config: dict[str, Any]) -> None:
        self.n_layers = n_layers = whole_number(path, config, "n_layers")
        self.d_model = d_model = whole_number(path, config, "d_in")
        crosses = yes_or_no(path, config, "cross_layer_decoders")
        self.file = file = Checkpoint(where)
        _, self.n_features = file.shape("b_enc", 2)
        shape = n_layers, self.n_features
        self.bias = file.read("b_enc", shape)  # before anything is made of n_layers things
        self.targets = [range(n, n_layers if crosses else n + 1) for n in range(n_layers)]
        self.n_pairs = sum(map(len, self.targets))
        self.threshold = file.read("log_threshold", shape).exp()
        self.encoder: Rows = file.rows("W_enc", (n_layers, d_model, self.n_features))
        self.decoder: Rows = file.rows("W_dec", (self.n_pairs, self.n_features, d_model))
        self.b_dec = file.read("b_dec", (self.n_pairs, d_model))

    def factor(self, side: str) -> Tensor:
        """`[n_layers]`, by which CLT-Forge multiplied what it read or rebuilt."""
        found = self.file.read(_FACTOR + side, (self.n_layers,))
        if bool((found <= 0).any()):
            raise CheckpointError(
                f"{self.file.path}: {_FACTOR}{side} has {float(found.min())}, must be above 0"
            )
        return found


def _layers(shards: Sequence[_Shard], n_features: int) -> list[Layer]:
    one = shards[0]
    read_factor, write_factor = one.factor("in"), one.factor("out")
    written = torch.tensor([target for targets in one.targets for target in targets])
    b_dec = torch.zeros(one.n_layers, one.d_model).index_add(0, written, one.b_dec)
    layers, pair = [], 0
    for number, targets in enumerate(one.targets):
        slabs, start = [], 0
        for shard in shards:
            features = range(start, start + shard.n_features)
            slabs += [
                Slab(
                    shard.decoder,
                    features,
                    range(j, j + 1),
                    first=(pair + j) * len(features),
                    scale=(1 / write_factor[target]).view(1, 1),
                )
                for j, target in enumerate(targets)
            ]
            start = features.stop
        pair += len(targets)
        layers.append(
            Layer(
                weight=Weight(
                    Joined(tuple(shard.encoder for shard in shards)),
                    n_features,
                    one.d_model,
                    first=number * one.d_model,
                    transposed=True,
                    scale=float(read_factor[number]),
                ),
                bias=torch.cat([shard.bias[number] for shard in shards]),
                activation=JumpReLU(torch.cat([shard.threshold[number] for shard in shards])),
                slabs=tuple(slabs),
                targets=targets,
                b_dec=b_dec[number] / write_factor[number],
                skip=None,
                source=f"{one.file.path.parent}: layer {number}",
            )
        )
    return layers


def _files(folder: Path, path: Path, config: dict[str, Any]) -> list[Path]:
    """The whole file, or all shards; the configuration tells where both are there."""
    matches = [(re.fullmatch(rf"rank(\d+)_{WEIGHTS}", p.name), p) for p in folder.iterdir()]
    ranks = {int(match[1]): file for match, file in matches if match}
    whole = folder / WEIGHTS
    sharded = "feature_sharding" in config and yes_or_no(path, config, "feature_sharding")
    if whole.is_file() and not (sharded and ranks):
        return [whole]
    if not ranks:
        raise CheckpointError(f"{folder}: {WEIGHTS} or rank0_{WEIGHTS} is missing beside {CONFIG}")
    for rank in range(len(ranks)):
        if rank not in ranks:
            raise CheckpointError(
                f"{folder}: rank{rank}_{WEIGHTS} is missing, though there is one of rank "
                f"{max(ranks)}"
            )
    return [ranks[rank] for rank in range(len(ranks))]
