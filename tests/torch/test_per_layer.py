"""Per-layer transcoders and GemmaScope: the numbers of the literal formula, in every format."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import tiny
from pie_fast.attribution import gate_effects, pool_effects, run_metric
from pie_fast.clt import Clt, load_clt
from pie_fast.clt.activation import JumpReLU
from pie_fast.errors import CheckpointError, DumpError, PieFastError
from pie_fast.model import Switches, make_batch
from pie_fast.replacement_model import load_model
from torch_prompts import random_prompts

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


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_format_is_the_literal_formula(case: str, lazy: bool, tmp_path: Path) -> None:
    write, layers = CASES[case]
    clt = load_clt(write(tmp_path / "clt"), lazy_encoder=lazy)
    assert (clt.n_layers, clt.n_features, clt.d_model) == (L, F, D)
    xs = [torch.randn(7, D, generator=torch.Generator().manual_seed(n)) for n in range(L)]
    ids = torch.tensor([0, 3, F - 1])
    for number, layer in enumerate(layers):
        assert torch.equal(clt.encoder(number).weight(), layer.w_enc)
        assert torch.equal(clt.rows(number, ids), layer.w_dec[ids])
        expected = layer.activations(xs[number])
        columns = clt.encoder(number).encode(xs[number])
        assert torch.allclose(columns.at(torch.arange(F)), expected, atol=1e-5)
        some = clt.encoder(number).encode_only(xs[number], ids)
        assert torch.allclose(some, expected[:, ids], atol=1e-5)
    for ours, plain in zip(rebuilt(clt, xs), reconstruction(layers, xs), strict=True):
        assert torch.allclose(ours, plain, atol=1e-4)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("case", ["relu", "skip, relu", "topk", "gemma scope 2 clt"])
def test_the_replacement_model_of_every_kind(
    case: str, lazy: bool, tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """All features kept it is the model; an effect is the derivative by the gate."""
    write, _ = CASES[case]
    clt = load_clt(write(tmp_path / "clt"), lazy_encoder=lazy)
    if lazy:
        for decoder in clt.decoders:
            assert decoder is not None
            decoder._whole = None  # so that rows are gathered from the file
    model = load_model(tiny_folders[0], clt, device="cpu")
    batch = make_batch(random_prompts(4), model.device)
    setup = model.prepare(batch, Switches("counterfactual"))
    own = model.host.run(batch.tokens, batch.answer_position, [])
    every = model.make_pool(range(L * F))
    ones = torch.ones(1, len(every))
    for rest in ("free", "baseline"):
        kept = model.run(setup, every, ones, rest=rest).logits[0]
        assert torch.allclose(kept, own, atol=1e-4), rest
    found = gate_effects(model, setup, "logit-diff", pool=every, gates=0.9 * ones, rest="baseline")
    effects = pool_effects(found, setup, every)[0].double()
    step = 2e-3
    for feature in effects.abs().sum(0).argsort(descending=True)[:6].tolist():
        sides = []
        for sign in (1, -1):
            gates = 0.9 * ones
            gates[0, feature] += sign * step
            run = model.run(setup, every, gates, rest="baseline")
            sides.append(run_metric(setup, run, "logit-diff")[0].double())
        slope = (sides[0] - sides[1]) / (2 * step)
        # A feature that crosses its threshold between the two sides has no derivative there.
        assert torch.isclose(slope, effects[:, feature], atol=0.02, rtol=0.02).sum() >= 3


def test_a_layer_without_a_transcoder_keeps_its_mlp(
    tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    clt = load_clt(write_set(tmp_path / "clt", plain_layers(skip=True)))
    for layer in range(L):
        without = replace(
            clt,
            encoders=[None if n == layer else one for n, one in enumerate(clt.encoders)],
            decoders=[None if n == layer else one for n, one in enumerate(clt.decoders)],
        )
        model = load_model(tiny_folders[0], without, device="cpu")
        batch = make_batch(random_prompts(4), model.device)
        setup = model.prepare(batch, Switches("zero"))
        features = [f for f in range(L * F) if f // F != layer]
        pool = model.make_pool(features)
        kept = model.run(setup, pool, torch.ones(1, len(pool)), rest="baseline").logits[0]
        assert torch.allclose(kept, setup.logits, atol=1e-4)
        for gradient in ("full", "frozen"):
            effects = gate_effects(model, setup, "logit-diff", gradient=gradient)
            assert [len(c.ids) > 0 for c in effects.activations] == [n != layer for n in range(L)]
        with pytest.raises(CheckpointError, match="which has layers"):
            without.check_feature(layer, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files(dtype: torch.dtype, tmp_path: Path) -> None:
    layers = plain_layers(skip=True)
    clt = load_clt(write_set(tmp_path / "clt", layers, dtype))
    assert torch.equal(clt.encoder(1).weight(), layers[1].w_enc.to(dtype).float())
    ids = torch.arange(F)
    assert torch.equal(clt.rows(2, ids), layers[2].w_dec.to(dtype).float())


def test_uncompressed_npz_rows_stay_on_disk(tmp_path: Path) -> None:
    """The file is cut after loading: rows that were in memory would still be there."""
    folder = write_npz(tmp_path / "clt", plain_layers())
    clt = load_clt(folder, lazy_encoder=True)
    for decoder in clt.decoders:
        assert decoder is not None
        decoder._whole = None  # small decoders are held
    (path,) = (folder / "layer_1").rglob("params.npz")
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(DumpError, match=r"params\.npz"):
        clt.rows(1, torch.tensor([1]))


def broken(tmp_path: Path, layer: int, **changed: Tensor | None) -> Path:
    folder = write_set(tmp_path / "clt", plain_layers())
    found = plain_layers()[layer]
    tensors: dict[str, Tensor | None] = {
        "W_enc": found.w_enc,
        "W_dec": found.w_dec[:, 0],
        "b_enc": found.b_enc,
        "b_dec": found.b_dec,
        "activation_function.threshold": found.threshold,
        **changed,
    }
    kept = {key: value.contiguous() for key, value in tensors.items() if value is not None}
    save_file(kept, folder / f"layer_{layer}.safetensors")
    return folder


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"W_enc": torch.zeros(D, F)}, ["W_enc", str([D, F]), str([F, D]), "transposed"]),
        ({"W_dec": torch.zeros(F, D - 1)}, ["W_dec", str([F, D - 1]), str([F, D])]),
        ({"W_dec": torch.zeros(F, D, dtype=torch.int32)}, ["W_dec", "I32", "F32"]),
        ({"b_enc": None}, ["b_enc is missing"]),
        ({"b_dec": torch.full((D,), torch.nan)}, ["b_dec", "NaN"]),
        ({"W_enc": torch.full((F, D), torch.inf)}, ["W_enc", "row 0", "finite"]),
        (
            {"W_enc": torch.zeros(4, D), "b_enc": torch.zeros(4), "W_dec": torch.zeros(4, D)}
            | {"activation_function.threshold": torch.zeros(4)},
            ["layer_1.safetensors: 4 features", f"layer_0.safetensors has {F}"],
        ),
    ],
)
def test_broken_layers_are_named(
    changed: dict[str, Tensor | None], parts: list[str], tmp_path: Path
) -> None:
    folder = broken(tmp_path, 1, **changed)
    with pytest.raises(PieFastError) as caught:
        load_clt(folder)
    for part in ["layer_1.safetensors", *parts]:
        assert part in str(caught.value)


def test_configurations_that_are_wrong(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "clt", plain_layers())
    config = folder / "config.yaml"
    for text, message in (
        (f"model_kind: transcoder_set\n{HOOKS}activation: gelu\n", "activation is 'gelu'"),
        (f"model_kind: transcoder_set\n{HOOKS}activation: topk\nk: -3\n", "k is -3"),
        (f"model_kind: transcoder_set\n{HOOKS}transcoders: [a, 3]\n", "must be a list of files"),
        (f"model_kind: transcoder_set\n{HOOKS}transcoders: [no.npz]\n", "no.npz, which is not"),
        (f"model_kind: transcoder_set\n{HOOKS}transcoders: ['hf://a']\n", "must be hf://org"),
        ("model_kind: transcoder_set\n", "feature_input_hook is None"),
        ("model_kind: sparse\n", "model_kind is 'sparse'"),
    ):
        config.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_clt(folder)
    config.unlink()
    with pytest.raises(CheckpointError, match="names the hooks"):
        load_clt(folder)


def test_a_layer_that_is_missing(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "clt", plain_layers())
    (folder / "layer_1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"layer_1\.safetensors is missing"):
        load_clt(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip", "not a readable npz"),
        (b"", "not a readable npz"),
        ("objects", "dtype object|allow_pickle|must be floats"),
        ("lies", "promises"),
        ("negative", "not a readable npz|promises"),
    ],
)
def test_npz_from_strangers(content: bytes | str, message: str, tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "clt", plain_layers())
    (path,) = (folder / "layer_0").rglob("params.npz")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "objects":
        np.savez(path, W_enc=np.array([{"a": 1}], dtype=object))
    else:
        shape = "(1000000, 1000000)" if content == "lies" else "(-1, 4)"
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        with zipfile.ZipFile(path, "w") as archive:
            npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
            archive.writestr("W_enc.npy", npy)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_clt(folder)
    assert "params.npz" in str(caught.value)


def test_thresholds_of_a_jump_relu_are_strict(tmp_path: Path) -> None:
    clt = load_clt(write_set(tmp_path / "clt", plain_layers()))
    activation = clt.encoder(0).activation
    assert isinstance(activation, JumpReLU)
    assert not bool(activation.passes(activation.threshold).any())
