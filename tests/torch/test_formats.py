"""Every format that a CLT may be stored in, against one literal CLT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import writing_clts as writing
from pie_fast.clt import Clt, clt_of, load_clt
from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.replacement_model import load_model
from pie_fast.types import FeatureId
from running import run_cli, write_behavior
from torch_prompts import random_prompts
from writing_clts import D, F, L, Plain

Writer = Callable[[Path, torch.dtype], Plain]

#: by name, what writes the format and says what it wrote
FORMATS: dict[str, Writer] = {
    "clt-forge": lambda to, dtype: writing.clt_forge(to, writing.plain(), dtype=dtype),
    "clt-forge shards": lambda to, dtype: writing.clt_forge(
        to, writing.plain(), dtype=dtype, shards=3
    ),
    "clt-forge per layer": lambda to, dtype: writing.clt_forge(
        to, writing.plain(crosses=False), dtype=dtype, factors=False
    ),
    "clt-forge per layer shards": lambda to, dtype: writing.clt_forge(
        to, writing.plain(crosses=False), dtype=dtype, shards=2
    ),
    "crosslayer": lambda to, dtype: writing.crosslayer(to, writing.plain(), dtype=dtype),
    "crosslayer dimensions": lambda to, dtype: writing.crosslayer(
        to, writing.plain(), dtype=dtype, standardizer="Dimensionwise"
    ),
    "crosslayer layers": lambda to, dtype: writing.crosslayer(
        to, writing.plain(crosses=False), dtype=dtype, standardizer="Layerwise"
    ),
    "crosslayer relu": lambda to, dtype: writing.crosslayer(
        to, writing.plain(activation="relu"), dtype=dtype, nonlinearity="ReLU"
    ),
    "crosslayer topk": lambda to, dtype: writing.crosslayer(
        to, writing.plain(activation="topk-positive"), dtype=dtype, nonlinearity="PerLayerTopK"
    ),
    "crosslayer batch topk": lambda to, dtype: writing.crosslayer(
        to, writing.plain(), dtype=dtype, nonlinearity="BatchTopK"
    ),
    "crosslayer layer batch topk": lambda to, dtype: writing.crosslayer(
        to, writing.plain(crosses=False), dtype=dtype, nonlinearity="PerLayerBatchTopK"
    ),
    "sae-lens": lambda to, dtype: writing.sae_lens(
        to, writing.plain(crosses=False, activation="relu"), dtype=dtype
    ),
    "sae-lens skip, old": lambda to, dtype: writing.sae_lens(
        to, writing.plain(crosses=False, activation="relu", skip=True), dtype=dtype, old=True
    ),
    "sae-lens jumprelu": lambda to, dtype: writing.sae_lens(
        to, writing.plain(crosses=False), dtype=dtype
    ),
    "sae-lens jumprelu skip": lambda to, dtype: writing.sae_lens(
        to, writing.plain(crosses=False, skip=True), dtype=dtype
    ),
}


def check_same(clt: Clt, one: Plain) -> None:
    """Arrays, activations and reconstructions, to 1e-5."""

    def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)

    x = torch.randn(L, 2, 6, D, generator=torch.Generator().manual_seed(3))
    acts = one.encode(x.flatten(1, 2)).view(L, 2, 6, F)
    assert (acts != 0).any((1, 2)).sum() > 20
    rebuilt = clt.b_dec[:, None, None].expand(x.shape).clone()
    for layer in clt.covered:
        encoder = clt.encoder(layer)
        close(encoder.weight(), one.w_enc[layer])
        close(encoder.bias, one.b_enc[layer])
        columns = encoder.encode(x[layer])
        every = torch.arange(F)
        close(columns.at(every), acts[layer])
        some = torch.tensor([0, 3, 17, F - 1])
        close(encoder.encode_only(x[layer], some), acts[layer][..., some])
        close(encoder.rows(some), one.w_enc[layer][some])
        targets = clt.targets(layer)
        assert list(targets) == [t for s, t in one.w_dec if s == layer]
        wanted = torch.stack([one.w_dec[layer, t] for t in targets], 1)
        close(clt.rows(layer, every), wanted)
        close(clt.rows(layer, some), wanted[some])
        writes = clt.decode(layer, columns.ids, columns.values)
        for place, target in enumerate(targets):
            rebuilt[target] += writes[..., place, :]
        skip = clt.skip(layer, x[layer])
        assert (skip is None) == (one.skip is None)
        if skip is not None:
            rebuilt[layer] += skip
    close(clt.b_dec, one.b_dec)
    close(rebuilt, one.rebuild(x.flatten(1, 2)).view(rebuilt.shape))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_holds_what_was_written(name: str, tmp_path: Path) -> None:
    one = FORMATS[name](tmp_path / "clt", torch.float32)
    for lazy in (False, True):
        check_same(load_clt(tmp_path / "clt", lazy_encoder=lazy), one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_in_half_precision(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    one = FORMATS[name](tmp_path / "clt", dtype)
    check_same(load_clt(tmp_path / "clt"), one)


def objects(folder: Path) -> dict[str, tuple[Any, Plain]]:
    """Objects of other libraries, and what they are."""
    jump, relu = writing.plain(), writing.plain(activation="relu", skip=True)
    per_layer = writing.plain(crosses=False, skip=True)
    topk = writing.plain(crosses=False, activation="topk")
    writing.circuit_tracer(folder / "clt", jump)
    writing.sae_lens(folder / "sae", per_layer)
    by_layer = writing.sae_lens_objects(folder / "sae")
    return {
        "cross-layer": (writing.cross_layer_object(jump), jump),
        "cross-layer relu skip": (writing.cross_layer_object(relu), relu),
        "cross-layer lazy": (writing.cross_layer_object(jump, folder / "clt"), jump),
        "set": (writing.set_object(per_layer), per_layer),
        "set topk": (writing.set_object(topk), topk),
        "set lazy": (writing.set_object(per_layer, folder / "set"), per_layer),
        "sae-lens by layer": (by_layer, per_layer),
        "sae-lens list": (list(by_layer.values())[::-1], per_layer),
    }


OBJECTS = (
    "cross-layer",
    "cross-layer relu skip",
    "cross-layer lazy",
    "set",
    "set topk",
    "set lazy",
    "sae-lens by layer",
    "sae-lens list",
)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_of_other_libraries(name: str, tmp_path: Path) -> None:
    found = objects(tmp_path)
    assert tuple(found) == OBJECTS
    clt = clt_of(found[name][0])
    check_same(clt, found[name][1])
    again = clt_of(objects(tmp_path)[name][0])
    assert again.identity == clt.identity
    others = {clt_of(other).identity for key, (other, _) in found.items() if "set" in key}
    assert len(others) == 2


def test_tensors_of_objects_are_used_where_they_are() -> None:
    one = writing.cross_layer_object(writing.plain())
    held = clt_of(one).encoder(1).weight()
    assert held.data_ptr() == one.W_enc[1].data_ptr()
    assert not held.requires_grad


def test_one_transcoder_leaves_the_other_layers_alone(
    tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    writing.sae_lens(tmp_path, writing.plain(crosses=False))
    for source in (tmp_path / "layer-1", writing.sae_lens_objects(tmp_path)[1]):
        model = load_model(tiny_folders[0], source, device="cpu")
        assert (model.clt.n_layers, model.clt.covered) == (L, (1,))
        with pytest.raises(PieFastError, match=r"has layers \[1\]"):
            model.intervene([1, 2, 3], [(FeatureId(0, 3), None, 1.0)])
        entries = model.attribute(random_prompts(4))
        assert {g // F for g in entries.active.tolist()} == {1}


def test_hooks_may_be_others_than_the_clt_says(
    tmp_path: Path, tiny_folders: tuple[Path, Path]
) -> None:
    writing.clt_forge(tmp_path, writing.plain())
    model = load_model(tiny_folders[0], tmp_path, device="cpu")
    assert model.read_hook == "ln2.hook_normalized"
    hooks = ("mlp.hook_in", "hook_mlp_out")
    model = load_model(tiny_folders[0], tmp_path, device="cpu", hooks=hooks)
    assert (model.read_hook, model.write_hook) == hooks
    with pytest.raises(CheckpointError, match="attn"):
        load_model(tiny_folders[0], tmp_path, device="cpu", hooks=("attn.hook_q", "hook_mlp_out"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_circuit_is_found_in_every_format(
    name: str,
    tiny_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FORMATS[name](tmp_path / "clt", torch.float32)
    behavior = write_behavior(tmp_path / "some.jsonl", 4, 2)
    monkeypatch.chdir(tmp_path)  # the CLT by a relative path
    sources = ("--model", tiny_folders[0], "--clt", "clt", "--behavior", behavior)
    said = run_cli("discover", *sources, "-k", 4, "--no-curve", "--out", "run", "--json").json
    assert len(said["features"]) == 4
    assert said["evaluation"]["behavioral_fidelity"] <= 1
