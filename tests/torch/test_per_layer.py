"""Per-layer transcoders and GemmaScope: the numbers of the literal formula, in every format."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import tiny
from pie_fast.attribution import gate_effects, pool_effects, run_metric
from pie_fast.clt import load_clt
from pie_fast.clt.activation import JumpReLU
from pie_fast.clt.loading import open_clt
from pie_fast.errors import CheckpointError, DumpError, PieFastError
from pie_fast.model import Switches, make_batch
from pie_fast.replacement_model import load_model
from plain_transcoders import (
    CASES,
    HOOKS,
    D,
    F,
    L,
    plain_layers,
    rebuilt,
    reconstruction,
    write_npz,
    write_set,
)
from running import run_cli, write_behavior
from torch_prompts import random_prompts


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
    clt = (open_clt if lazy else load_clt)(write(tmp_path / "clt"))  # rows from the file, or held
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
    clt = open_clt(folder)  # small decoders would be held
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
        (f"model_kind: transcoder_set\n{HOOKS}transcoders: [no.npz]\n", "'no.npz', which is not"),
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


def test_thresholds_are_never_dropped(tmp_path: Path) -> None:
    name = "activation_function.threshold"
    folder = broken(tmp_path, 1, **{name: None})
    with pytest.raises(CheckpointError, match=r"layer_1.*is missing, though .*layer_0"):
        load_clt(folder)
    for other in ("threshold", "log_thresholds"):
        folder = broken(tmp_path / other, 1, **{name: None, other: torch.ones(F)})
        with pytest.raises(CheckpointError, match=f"{other} is not a threshold"):
            load_clt(folder)
    folder = write_set(tmp_path / "said", plain_layers())
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "activation: relu\n")
    with pytest.raises(CheckpointError, match=r"config\.yaml says activation relu: one of the two"):
        load_clt(folder)


def test_what_decides_activations_and_sites_is_part_of_the_identity(tmp_path: Path) -> None:
    found = set()
    for n, added in enumerate(("activation: relu\n", "activation: topk\nk: 2\n", "scan: x\n", "")):
        folder = write_set(tmp_path / str(n), plain_layers(jump=False))
        text = (folder / "config.yaml").read_text() + added
        text = text if added else text.replace("mlp.hook_in", "hook_resid_mid")
        (folder / "config.yaml").write_text(text)
        found.add(open_clt(folder).identity)
    assert len(found) == 4


@pytest.mark.parametrize(
    "text",
    [
        "a: 2020-99-99",
        "a: !!int x",
        "a: !!timestamp x",
        "a: !!bool x",
        "a: !!int ''",
        "- 1",
        "a: [",
        "model_kind: *x",
        f"a: {'1' * 5000}",
    ],
)
def test_yaml_from_strangers(text: str, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "clt", plain_layers())
    (folder / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        load_clt(folder)


def test_values_are_shown_short(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "clt", plain_layers())
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (folder / "config.yaml").write_text("\n".join([*lines, "model_kind: *a8"]))
    with pytest.raises(CheckpointError) as caught:
        load_clt(folder)
    assert len(str(caught.value)) < 5000


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
        ("wide header", "has a header of 300000000 bytes"),
        ("deflate", "not a readable npz|does not read"),
        ("no header", "not a readable npz"),
    ],
)
def test_npz_from_strangers(content: bytes | str, message: str, tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "clt", plain_layers())
    (path,) = (folder / "layer_0").rglob("params.npz")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "objects":
        np.savez(path, W_enc=np.array([{"a": 1}], dtype=object))
    elif content == "wide header":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            head = b"\x93NUMPY\x02\x00" + (300_000_000).to_bytes(4, "little")
            archive.writestr("W_enc.npy", head + bytes(1000))
    elif content == "no header":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("W_enc.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': (((((\n")
    elif content == "deflate":
        np.savez_compressed(path, W_enc=np.random.default_rng(0).normal(size=(200, 50)))
        whole = bytearray(path.read_bytes())
        whole[60:400] = b"\xff" * 340
        path.write_bytes(whole)
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


@pytest.mark.parametrize("case", CASES)
def test_a_circuit_is_found_in_every_format(
    case: str,
    tiny_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, _ = CASES[case]
    write(tmp_path / "clt")
    behavior = write_behavior(tmp_path / "some.jsonl", 4, 2)
    monkeypatch.chdir(tmp_path)  # the folder by a relative path
    given = ("--model", tiny_folders[0], "--clt", "clt", "--behavior", behavior, "-k", 5)
    planned = run_cli("plan", *given, "--json").json
    quick = ("--no-curve", "--stability", 0, "--lazy-encoder")
    found = run_cli("discover", *given, *quick, "--out", "run", "--json").json
    assert len(found["features"]) == 5
    captured = found["model_calls"]["capture"]
    assert captured in [
        {key: stage[key] for key in ("forward", "backward")} for stage in planned["stages"]
    ]


def test_a_decoder_that_is_cut_while_it_is_open(tmp_path: Path) -> None:
    """Rows are read by place: an error that names the file, where a mapping would be a signal."""
    folder = tiny.write_clt(tmp_path / "clt")
    clt = open_clt(folder)
    x = torch.randn(4, D)
    columns = clt.encoder(0).encode(x)
    clt.decode(0, columns.ids[:2], columns.values[:, :2])
    for name in ("W_dec_0", "W_enc_1"):
        with (folder / f"{name}.safetensors").open("r+b") as file:
            file.truncate(400)
    with pytest.raises(DumpError, match=r"W_dec_0\.safetensors"):
        clt.decode(0, columns.ids, columns.values)
    with pytest.raises(DumpError, match=r"W_enc_1\.safetensors"):
        clt.encoder(1).encode(x)


def test_a_hub_id_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in ("someone/some-clt", "hf://someone/some-clt/folder?revision=main"):
        with pytest.raises(CheckpointError, match="Without network pass a local folder") as caught:
            load_clt(source)
        assert source in str(caught.value)


def test_folders_that_are_no_transcoder_say_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(CheckpointError, match="no transcoder found") as caught:
        load_clt(tmp_path)
    for part in ("W_enc_0", "layer_0", "clt_cfg.json", "sae_weights", "transcoder_set", "readme"):
        assert part in str(caught.value)


def test_nothing_is_decoded_from_a_file_as_zeros(tmp_path: Path) -> None:
    clt = open_clt(write_set(tmp_path / "clt", plain_layers()))
    none = torch.zeros(0, dtype=torch.int64)
    values = torch.zeros(2, 5, 0, requires_grad=True)
    writes = clt.decode(1, none, values)
    assert torch.equal(writes, torch.zeros(2, 5, 1, D))
    writes.sum().backward()
