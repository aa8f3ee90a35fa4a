"""Random per-layer transcoders in the plainest form, and the files that hold them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import tiny
from pie_fast.clt import Clt

L, F, D = tiny.N_LAYERS, tiny.N_FEATURES, tiny.D_MODEL
HOOKS = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"


@dataclass(frozen=True)
class Plain:
    """One layer in the plainest form; decoder `[F, n_targets, d]` to its layer and those above."""

    w_enc: Tensor
    b_enc: Tensor
    threshold: Tensor | None
    w_dec: Tensor
    b_dec: Tensor
    skip: Tensor | None = None
    k: int | None = None

    def activations(self, x: Tensor) -> Tensor:
        pre = x @ self.w_enc.T + self.b_enc
        if self.k is not None:
            kept = torch.zeros_like(pre)
            best = pre.argsort(-1, descending=True)[..., : self.k]
            return kept.scatter(-1, best, pre.gather(-1, best))
        bound = torch.zeros(F) if self.threshold is None else self.threshold
        return pre * (pre > bound)


def plain_layers(*, cross: bool = False, jump: bool = True, skip: bool = False) -> list[Plain]:
    generator = torch.Generator().manual_seed(11)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    return [
        Plain(
            randn(F, D),
            randn(F),
            randn(F).abs() if jump else None,
            randn(F, L - layer if cross else 1, D),
            randn(D),
            randn(D, D) if skip else None,
        )
        for layer in range(L)
    ]


def reconstruction(layers: list[Plain], xs: list[Tensor]) -> list[Tensor]:
    out = [layer.b_dec.expand(len(x), D).clone() for layer, x in zip(layers, xs, strict=True)]
    for source, (layer, x) in enumerate(zip(layers, xs, strict=True)):
        acts = layer.activations(x)
        for slot in range(layer.w_dec.shape[1]):
            out[source + slot] += acts @ layer.w_dec[:, slot]
        if layer.skip is not None:
            out[source] += x @ layer.skip.T
    return out


def rebuilt(clt: Clt, xs: list[Tensor]) -> list[Tensor]:
    out = [b.expand(len(x), D).clone() for b, x in zip(clt.b_dec, xs, strict=True)]
    for layer, x in enumerate(xs):
        columns = clt.encoder(layer).encode(x)
        writes = clt.decode(layer, columns.ids, columns.values)
        for target, part in zip(clt.targets(layer), writes.unbind(-2), strict=True):
            out[target] += part
        added = clt.skip(layer, x)
        if added is not None:
            out[layer] += added
    return out


def write_set(folder: Path, layers: list[Plain], dtype: torch.dtype = torch.float32) -> Path:
    folder.mkdir(parents=True)
    k = layers[0].k
    extra = "" if k is None else f"activation: topk\nk: {k}\n"
    (folder / "config.yaml").write_text(f"model_kind: transcoder_set\n{HOOKS}{extra}")
    for number, layer in enumerate(layers):
        found = {
            "W_enc": layer.w_enc,
            "W_dec": layer.w_dec[:, 0],
            "b_enc": layer.b_enc,
            "b_dec": layer.b_dec,
            "activation_function.threshold": layer.threshold,
            "W_skip": layer.skip,
        }
        held = {k: v.to(dtype).contiguous() for k, v in found.items() if v is not None}
        save_file(held, folder / f"layer_{number}.safetensors")
    return folder


def write_npz(
    folder: Path, layers: list[Plain], save: Callable[..., None] = np.savez, fortran: bool = False
) -> Path:
    folder.mkdir(parents=True)
    names = [f"layer_{n}/width_16k/average_l0_{n}/params.npz" for n in range(len(layers))]
    listed = "".join(f"- {name}\n" for name in names)
    (folder / "config.yaml").write_text(
        f"model_kind: transcoder_set\n{HOOKS}transcoders:\n{listed}"
    )
    for name, layer in zip(names, layers, strict=True):
        (folder / name).parent.mkdir(parents=True)
        assert layer.threshold is not None
        w_dec = layer.w_dec[:, 0].numpy()
        save(
            folder / name,
            W_enc=layer.w_enc.T.numpy(),  # a transposed view: numpy stores it in Fortran's order
            W_dec=np.asfortranarray(w_dec) if fortran else w_dec.copy(),
            b_enc=layer.b_enc.numpy(),
            b_dec=layer.b_dec.numpy(),
            threshold=layer.threshold.numpy(),
        )
    return folder


def write_gemma_scope_2(folder: Path, layers: list[Plain], *, cross: bool) -> Path:
    folder.mkdir(parents=True)
    names = [f"layer_{n}.safetensors" for n in range(len(layers))]
    kind = "cross_layer_transcoder" if cross else "transcoder_set"
    # Published configurations repeat the last file.
    listed = "".join(f"- {name}\n" for name in (*names, *names[-1:] * cross))
    (folder / "config.yaml").write_text(f"model_kind: {kind}\n{HOOKS}transcoders:\n{listed}")
    for number, (name, layer) in enumerate(zip(names, layers, strict=True)):
        assert layer.threshold is not None
        w_dec = layer.w_dec[:, 0]
        if cross:
            w_dec = torch.full((F, L, D), 9.0)
            w_dec[:, number:] = layer.w_dec
        found = {
            "w_enc": layer.w_enc.T,
            "w_dec": w_dec,
            "b_enc": layer.b_enc,
            "b_dec": layer.b_dec,
            "threshold": layer.threshold,
        }
        if layer.skip is not None:
            found["affine_skip_connection"] = layer.skip.T
        save_file({key: value.contiguous() for key, value in found.items()}, folder / name)
    return folder


def with_k(layers: list[Plain], k: int) -> list[Plain]:
    return [replace(layer, threshold=None, k=k) for layer in layers]


CASES: dict[str, tuple[Callable[[Path], Path], list[Plain]]] = {
    "relu": (lambda at: write_set(at, plain_layers(jump=False)), plain_layers(jump=False)),
    "jump": (lambda at: write_set(at, plain_layers()), plain_layers()),
    "skip": (lambda at: write_set(at, plain_layers(skip=True)), plain_layers(skip=True)),
    "skip, relu": (
        lambda at: write_set(at, plain_layers(jump=False, skip=True)),
        plain_layers(jump=False, skip=True),
    ),
    "topk": (lambda at: write_set(at, with_k(plain_layers(), 5)), with_k(plain_layers(), 5)),
    "gemma scope 1": (lambda at: write_npz(at, plain_layers()), plain_layers()),
    "gemma scope 1, compressed": (
        lambda at: write_npz(at, plain_layers(), np.savez_compressed),
        plain_layers(),
    ),
    "gemma scope 1, fortran": (
        lambda at: write_npz(at, plain_layers(), fortran=True),
        plain_layers(),
    ),
    "gemma scope 2": (
        lambda at: write_gemma_scope_2(at, plain_layers(skip=True), cross=False),
        plain_layers(skip=True),
    ),
    "gemma scope 2 clt": (
        lambda at: write_gemma_scope_2(at, plain_layers(cross=True), cross=True),
        plain_layers(cross=True),
    ),
}
