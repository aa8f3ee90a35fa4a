"""Checkpoints that are broken or cannot be read exactly: named by file, tensor and value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import writing_clts as writing
from pie_fast.clt import clt_of, load_clt
from pie_fast.errors import PieFastError
from pie_fast.replacement_model import load_model
from writing_clts import D, F, L

Edit = Callable[[Path], None]


def make(folder: Path, kind: str) -> None:
    if kind == "clt-forge":
        writing.clt_forge(folder, writing.plain())
    elif kind == "shards":
        writing.clt_forge(folder, writing.plain(), shards=3)
    elif kind == "crosslayer":
        writing.crosslayer(folder, writing.plain(), standardizer="Dimensionwise")
    else:
        writing.sae_lens(folder, writing.plain(crosses=False, skip=True))


def without(file: str, key: str) -> Edit:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / file)
        del tensors[key]
        save_file(tensors, folder / file)

    return edit


def changed(file: str, key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / file)
        tensors[key] = change(tensors[key]).contiguous()
        save_file(tensors, folder / file)

    return edit


def configured(file: str, *keys: str, to: Any) -> Edit:
    """Set a value of a configuration."""

    def edit(folder: Path) -> None:
        path = folder / file
        read, write = (
            (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.dump)
        )
        config = inner = read(path.read_text())
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to
        path.write_text(write(config))

    return edit


def nan(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x.view(-1)[7] = math.nan
    return x


FORGE, SHARD = "clt_weights.safetensors", "rank1_clt_weights.safetensors"
CROSS, SAE = "checkpoint.safetensors", "layer-1/sae_weights.safetensors"
PARTS = ("model", "init_args")

#: format, what is wrong, and what the error must say
CASES: list[tuple[str, Edit, list[object]]] = [
    # tensors that are missing
    *[
        (kind, without(file, key), [file, f"{key} is missing"])
        for kind, file, keys in (
            ("clt-forge", FORGE, "W_enc b_enc W_dec b_dec log_threshold"),
            ("clt-forge", FORGE, "estimated_norm_scaling_factor_in"),
            ("shards", SHARD, "log_threshold W_dec"),
            ("crosslayer", CROSS, "encoder.W encoder.b decoder.W_1 decoder.b nonlinearity.theta"),
            ("crosslayer", CROSS, "input_standardizer.mean output_standardizer.std"),
            ("sae-lens", SAE, "W_enc b_enc W_dec b_dec threshold W_skip"),
        )
        for key in keys.split()
    ],
    # transposed, too small, of another width
    ("clt-forge", changed(FORGE, "W_enc", lambda x: x.mT), [FORGE, "W_enc", [L, F, D], [L, D, F]]),
    ("clt-forge", changed(FORGE, "b_dec", lambda x: x[:-1]), [FORGE, "b_dec", [5, D], [6, D]]),
    ("shards", changed(SHARD, "W_dec", lambda x: x.mT), [SHARD, "W_dec", [6, D, 16], [6, 16, D]]),
    ("crosslayer", changed(CROSS, "encoder.W", lambda x: x.mT), [CROSS, "encoder.W", [L, F, D]]),
    (
        "crosslayer",
        changed(CROSS, "decoder.W_2", lambda x: x[1:]),
        [CROSS, "decoder.W_2", [2, F, D], [3, F, D]],
    ),
    (
        "sae-lens",
        changed(SAE, "W_enc", lambda x: x.T),
        [SAE, "W_enc", [F, D], [D, F], "transposed"],
    ),
    ("sae-lens", changed(SAE, "W_skip", lambda x: x[1:]), [SAE, "W_skip", [D - 1, D], [D, D]]),
    # numbers that are none, other dtypes
    ("clt-forge", changed(FORGE, "b_dec", nan), [FORGE, "b_dec", "NaN"]),
    ("clt-forge", changed(FORGE, "W_enc", nan), [FORGE, "W_enc", "finite"]),
    ("shards", changed(SHARD, "W_dec", nan), [SHARD, "W_dec", "finite"]),
    ("crosslayer", changed(CROSS, "decoder.W_1", nan), [CROSS, "decoder.W_1", "finite"]),
    ("crosslayer", changed(CROSS, "nonlinearity.theta", nan), [CROSS, "nonlinearity.theta", "NaN"]),
    ("sae-lens", changed(SAE, "threshold", nan), [SAE, "threshold", "NaN"]),
    ("clt-forge", changed(FORGE, "W_dec", torch.Tensor.int), [FORGE, "W_dec", "I32", "BF16"]),
    ("crosslayer", changed(CROSS, "encoder.b", torch.Tensor.double), [CROSS, "encoder.b", "F64"]),
    ("sae-lens", changed(SAE, "W_dec", torch.Tensor.long), [SAE, "W_dec", "I64"]),
    # factors and deviations that cannot be divided by
    (
        "clt-forge",
        changed(FORGE, "estimated_norm_scaling_factor_out", torch.zeros_like),
        [FORGE, "estimated_norm_scaling_factor_out", "above 0"],
    ),
    (
        "crosslayer",
        changed(CROSS, "input_standardizer.std", torch.neg),
        [CROSS, "input_standardizer.std", "above 0"],
    ),
    # shards
    ("shards", lambda to: (to / SHARD).unlink(), [SHARD, "missing", "rank 2"]),
    (
        "shards",
        lambda to: (to / "rank2_clt_weights.safetensors").unlink(),
        ["clt_cfg.json", "d_latent is 48", "hold 32", "shard is missing"],
    ),
    ("clt-forge", lambda to: (to / FORGE).unlink(), [FORGE, "missing"]),
    # configurations
    *[
        (kind, configured(file, *keys, to=value), [file, keys[-1], repr(value)])
        for value in ("3", -1, 0, 2.0, None, True, {"a": [1]}, [3])
        for kind, file, keys in (
            ("clt-forge", "clt_cfg.json", ("n_layers",)),
            ("shards", "clt_cfg.json", ("d_latent",)),
            ("crosslayer", "config.yaml", (*PARTS, "encoder", "init_args", "d_features")),
            ("sae-lens", "layer-2/cfg.json", ("d_sae",)),
        )
    ],
    ("clt-forge", configured("clt_cfg.json", "n_layers", to=10**9), [FORGE, "b_enc", 10**9]),
    ("clt-forge", configured("clt_cfg.json", "d_in", to=D + 1), [FORGE, "W_enc", D + 1]),
    (
        "clt-forge",
        configured("clt_cfg.json", "cross_layer_decoders", to="yes"),
        ["clt_cfg.json", "cross_layer_decoders", "'yes'", "true or false"],
    ),
    (
        "clt-forge",
        lambda to: (to / "clt_cfg.json").write_text("[" * 9999) and None,
        ["clt_cfg.json"],
    ),
    ("crosslayer", configured("config.yaml", "model", to=[1]), ["config.yaml", "model", "[1]"]),
    (
        "crosslayer",
        configured("config.yaml", *PARTS, "encoder", to="me"),
        ["config.yaml", "model.init_args.encoder", "'me'", "mapping"],
    ),
    (
        "crosslayer",
        configured("config.yaml", *PARTS, "nonlinearity", "class_path", to="os.system"),
        ["config.yaml", "nonlinearity.class_path", "'os.system'", "PerLayerTopK"],
    ),
    (
        "crosslayer",
        configured(
            "config.yaml",
            *(*PARTS, "input_standardizer", "class_path"),
            to="x.SamplewiseInputStandardizer",
        ),
        ["config.yaml", "input_standardizer", "Samplewise", "each position", "Dimensionwise"],
    ),
    (
        "crosslayer",
        configured("config.yaml", "model", "is_folded", to=True),
        ["config.yaml", "is_folded", "input_standardizer", "null"],
    ),
    *[
        (
            "sae-lens",
            configured("layer-1/cfg.json", key, to=value),
            ["layer-1/cfg.json", key, *said],
        )
        for key, value, said in (
            ("architecture", "standard", ["'standard'", "skip_transcoder"]),
            ("architecture", ["transcoder"], ["['transcoder']"]),
            ("apply_b_dec_to_input", True, ["True", "False"]),
            ("normalize_activations", "layer_norm", ["'layer_norm'", "'none'"]),
            ("normalize_activations", {"a": 1}, ["{'a': 1}"]),
            ("reshape_activations", "hook_z", ["'hook_z'"]),
            ("d_out", D + 1, [D + 1, D]),
            ("metadata", 3, ["3", "mapping"]),
        )
    ],
    *[
        ("sae-lens", configured("layer-1/cfg.json", "metadata", key, to=value), ["layer-1", *said])
        for key, value, said in (
            ("hook_name", None, ["hook_name", "None", "blocks.0"]),
            ("hook_name", "blocks.123456789.mlp.hook_in", ["hook_name", "123456789"]),
            ("hook_name_out", "blocks.2.hook_mlp_out", ["hook_name_out", "must be of layer 1"]),
            ("hook_layer", 2, ["hook_layer is 2", "blocks.1"]),
            ("model_from_pretrained_kwargs", {"fold_ln": True}, ["fold_ln", "True"]),
        )
    ],
    (
        "sae-lens",
        configured("layer-1/cfg.json", "architecture", to="skip_transcoder"),
        [SAE, "threshold", "'skip_transcoder'"],
    ),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_refused(case: int, tmp_path: Path) -> None:
    kind, edit, parts = CASES[case]
    make(tmp_path, kind)
    edit(tmp_path)
    with pytest.raises(PieFastError) as error:
        load_clt(tmp_path)
    for part in (tmp_path, *parts):
        assert str(part) in str(error.value), error.value


def test_layers_that_disagree(tmp_path: Path) -> None:
    make(tmp_path, "sae-lens")
    path = tmp_path / "layer-1"
    tensors = load_file(path / "sae_weights.safetensors")
    for key, axis in (("W_enc", 1), ("b_enc", 0), ("W_dec", 0), ("threshold", 0)):
        tensors[key] = tensors[key].narrow(axis, 0, F - 8).contiguous()
    save_file(tensors, path / "sae_weights.safetensors")
    configured("layer-1/cfg.json", "d_sae", to=F - 8)(tmp_path)
    with pytest.raises(PieFastError, match=f"layer-1.*{F - 8} features.*layer-0.*{F}"):
        load_clt(tmp_path)
    other = tmp_path / "other"
    make(other, "sae-lens")
    configured("layer-1/cfg.json", "metadata", "hook_name", to="blocks.1.mlp.hook_in")(other)
    with pytest.raises(PieFastError, match=r"layer-1.*mlp.hook_in.*layer-0.*hook_normalized"):
        load_clt(other)
    for key in ("hook_name", "hook_name_out"):
        configured("layer-1/cfg.json", "metadata", key, to="blocks.0.hook_mlp_out")(other)
    with pytest.raises(PieFastError, match=r"layer-1.*layer 0 is also that of .*layer-0"):
        load_clt(other)


def test_sparsify_is_named(tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_text("{}")
    save_file({"encoder.weight": torch.zeros(2, 2)}, tmp_path / "sae.safetensors")
    with pytest.raises(PieFastError, match=r"sparsify.*CLT-Forge.*SAELens"):
        load_clt(tmp_path)


@pytest.mark.parametrize("wrong", [3, None, [], {}, ["a"], object(), torch.nn.Linear(2, 2)])
def test_objects_that_are_no_transcoders(wrong: object, tiny_folders: tuple[Path, Path]) -> None:
    with pytest.raises(PieFastError, match=r"CrossLayerTranscoder or TranscoderSet.*SAELens"):
        load_model(tiny_folders[0], wrong, device="cpu")


def test_objects_that_cannot_be_read_exactly(tmp_path: Path) -> None:
    one = writing.cross_layer_object(writing.plain())
    for change, parts in (
        ({"activation_function": torch.nn.GELU()}, ["activation_function", "GELU"]),
        ({"W_dec": None}, ["clt_path is None"]),
        ({"b_enc": one.b_enc[:, 1:]}, ["b_enc", [F - 1], [F]]),
        ({"W_enc": one.W_enc.mT}, ["W_enc_0", [D, F], [F, D]]),
        ({"b_dec": one.b_dec * math.nan}, ["b_dec", "NaN"]),
        ({"activation_function": SimpleNamespace(threshold=torch.zeros(L, 1, 3))}, ["threshold"]),
    ):
        with pytest.raises(PieFastError) as error:
            clt_of(SimpleNamespace(**{**vars(one), **change}))
        for part in parts:
            assert str(part) in str(error.value), error.value
    make(tmp_path, "sae-lens")
    with pytest.raises(PieFastError, match="given as layer 2, but its hooks are of 0"):
        clt_of({2: writing.sae_lens_objects(tmp_path)[0]})
