"""Models and CLTs that are broken or do not fit: named by file, tensor and value."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from running import Outcome, World, run_cli


def capture(world: World, folder: Path, **changed: Path) -> Outcome:
    """Capture with another model or CLT into `folder/dump`, which must not appear."""
    sources = {"model": world.model, "clt": world.clt, "behavior": world.behavior} | changed
    options = [part for name, value in sources.items() for part in (f"--{name}", value)]
    said = run_cli("capture", *options, "--out", folder / "dump")
    assert not (folder / "dump").exists()
    return said


@pytest.fixture
def clt(world: World, tmp_path: Path) -> Path:
    """A CLT to break."""
    return Path(shutil.copytree(world.clt, tmp_path / "broken-clt"))


@pytest.fixture
def model(world: World, tmp_path: Path) -> Path:
    """A model to break."""
    return Path(shutil.copytree(world.model, tmp_path / "broken-model"))


def edit(path: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors of a file; None takes one out."""
    changed: dict[str, torch.Tensor | None] = {**load_file(path), **tensors}
    kept = {name: value for name, value in changed.items() if value is not None}
    save_file(kept, path, metadata={"format": "pt"})


def with_value(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[7] = value
    return tensor


@pytest.mark.parametrize("name", ["W_enc_0", "W_enc_1", "W_enc_2", "W_dec_1", "W_dec_2"])
def test_missing_layer_file(world: World, clt: Path, tmp_path: Path, name: str) -> None:
    (clt / f"{name}.safetensors").unlink()
    capture(world, tmp_path, clt=clt).refused(clt, f"{name}.safetensors")


@pytest.mark.parametrize("name", ["W_enc_1", "W_dec_1"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda whole: whole[:-100], id="truncated"),
        pytest.param(lambda whole: whole[:4], id="no header"),
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: b"\xff" * 8 + whole[8:], id="endless header"),
        pytest.param(lambda whole: whole[:8] + b"x" * (len(whole) - 8), id="garbage header"),
    ],
)
def test_broken_safetensors(
    world: World, clt: Path, tmp_path: Path, name: str, content: object
) -> None:
    assert callable(content)
    path = clt / f"{name}.safetensors"
    path.write_bytes(content(path.read_bytes()))
    capture(world, tmp_path, clt=clt).refused(path, "safetensors")


@pytest.mark.parametrize("name", ["W_enc_1", "b_enc_1", "b_dec_1", "threshold_1", "W_dec_1"])
def test_wrong_shapes_and_missing_tensors(
    world: World, clt: Path, tmp_path: Path, name: str
) -> None:
    path = clt / f"{'W_dec_1' if name == 'W_dec_1' else 'W_enc_1'}.safetensors"
    right = load_file(path)[name]
    edit(path, **{name: right[..., :-1].contiguous()})
    said = capture(world, tmp_path, clt=clt)
    said.refused(path, name, [*right.shape[:-1], right.shape[-1] - 1], list(right.shape))
    if name != "threshold_1":
        edit(path, **{name: None}, other=torch.zeros(1))
        capture(world, tmp_path, clt=clt).refused(path, f"{name} is missing")


@pytest.mark.parametrize("name", ["W_enc_1", "b_enc_1", "b_dec_1", "threshold_1", "W_dec_1"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_in_the_clt(
    world: World, clt: Path, tmp_path: Path, name: str, value: float
) -> None:
    path = clt / f"{'W_dec_1' if name == 'W_dec_1' else 'W_enc_1'}.safetensors"
    edit(path, **{name: with_value(load_file(path)[name], value)})
    capture(world, tmp_path, clt=clt).refused(path, name, "finite")


def test_thresholds_of_some_layers_only(world: World, clt: Path, tmp_path: Path) -> None:
    edit(clt / "W_enc_1.safetensors", threshold_1=None)
    said = capture(world, tmp_path, clt=clt)
    said.refused(
        "W_enc_1.safetensors: threshold_1 is missing", "W_enc_0.safetensors has threshold_0"
    )


@pytest.mark.parametrize("name", ["W_enc_1", "W_dec_1"])
def test_weights_in_another_order_or_dtype(
    world: World, clt: Path, tmp_path: Path, name: str
) -> None:
    path = clt / f"{name}.safetensors"
    right = load_file(path)[name]
    turned = right.transpose(0, -1).contiguous()
    edit(path, **{name: turned})
    capture(world, tmp_path, clt=clt).refused(path, name, [*turned.shape], [*right.shape])
    edit(path, **{name: right.to(torch.int8)})
    capture(world, tmp_path, clt=clt).refused(path, name, "dtype I8", "BF16, F16, F32")


def test_clt_of_another_model(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "D_MODEL", 16)
    narrow = tiny.write_clt(tmp_path / "narrow")
    capture(world, tmp_path, clt=narrow).refused(narrow, "d_model 16", world.model, "32")
    monkeypatch.undo()
    monkeypatch.setattr(tiny, "N_LAYERS", 2)
    short = tiny.write_clt(tmp_path / "short")
    capture(world, tmp_path, clt=short).refused(short, "number of layers 2", world.model, "3")


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("model_kind: transcoder_set\n", ["model_kind", "transcoder_set"]),
        ("model_kind: cross_layer_transcoder\n", ["feature_input_hook", "None"]),
        ("[1, 2]", ["mapping", "list"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_bad_configs(
    world: World, clt: Path, tmp_path: Path, config: str, parts: list[str]
) -> None:
    (clt / "config.yaml").write_text(config)
    capture(world, tmp_path, clt=clt).refused(clt / "config.yaml", *parts)


def test_hooks_that_the_model_does_not_have(world: World, clt: Path, tmp_path: Path) -> None:
    text = (clt / "config.yaml").read_text()
    (clt / "config.yaml").write_text(text.replace("mlp.hook_in", "mlp.hook_sideways"))
    capture(world, tmp_path, clt=clt).refused("mlp.hook_sideways", world.model, "hook_mlp_out")


def test_folders_that_hold_something_else(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    capture(world, tmp_path, clt=tmp_path / "empty").refused("no transcoder found", "W_enc_0")
    capture(world, tmp_path, clt=tmp_path / "nothing").refused(tmp_path / "nothing")
    capture(world, tmp_path, model=tmp_path / "empty").refused(tmp_path / "empty", "config.json")
    capture(world, tmp_path, model=tmp_path / "nothing").refused(tmp_path / "nothing")


def test_model_whose_weights_are_broken(world: World, model: Path, tmp_path: Path) -> None:
    path = model / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    capture(world, tmp_path, model=model).refused(model, "does not load")
    path.write_bytes(whole)
    edit(path, **{"transformer.h.1.mlp.c_fc.weight": None})
    # transformers itself would go on with random numbers
    capture(world, tmp_path, model=model).refused(model, "missing", "h.1.mlp.c_fc.weight")
    (model / "config.json").write_text("{")
    capture(world, tmp_path, model=model).refused(model, "does not load")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_activations_that_are_no_numbers(
    world: World, model: Path, tmp_path: Path, value: float
) -> None:
    path, name = model / "model.safetensors", "transformer.h.1.mlp.c_proj.bias"
    edit(path, **{name: with_value(load_file(path)[name], value)})
    said = capture(world, tmp_path, model=model)
    said.refused("layer 1", "prompt 0", "NaN or infinite")


def test_the_prompt_with_nan_is_named(world: World, model: Path, tmp_path: Path) -> None:
    path, name = model / "model.safetensors", "transformer.wte.weight"
    weight = load_file(path)[name]
    weight[17] = math.nan
    edit(path, **{name: weight})
    behavior = tmp_path / "b.jsonl"
    behavior.write_text(
        '{"tokens": [0, 5, 6], "answer_id": 3, "split": "selection"}\n' * 5
        + '{"tokens": [0, 5, 17], "answer_id": 3, "split": "selection"}\n'
    )
    # The embedding is the unembedding too, so the logits of every prompt know token 17.
    said = capture(world, tmp_path, model=model, behavior=behavior)
    said.refused("layer 0", "prompt 5")


def test_loading_says_nothing_on_the_terminal(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    import logging

    from transformers.utils.logging import is_progress_bar_enabled

    from pie_fast import load_model

    logger = logging.getLogger("transformers.modeling_utils")
    before = logger.level, logger.propagate, list(logger.handlers), is_progress_bar_enabled()
    assert load_model(world.model, world.clt, device="cpu").host.tokenizer is None
    assert (capfd.readouterr().out, capfd.readouterr().err) == ("", "")
    after = logger.level, logger.propagate, list(logger.handlers), is_progress_bar_enabled()
    assert after == before
