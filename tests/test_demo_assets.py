"""The shipped demo model and transcoder: sizes, shapes, and that the model can do its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from pie_fast import data
from pie_fast.behaviors import TASKS, load_behavior
from pie_fast.behaviors.pools import ARGUMENTS, NAMES
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.errors import CheckpointError

L, F, D = 4, 1024, 128


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo_model_path())


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(demo_model_path()).eval()


def test_size_and_kinds_of_files() -> None:
    files = [f for f in demo_model_path().parent.rglob("*") if f.is_file()]
    assert 4_000_000 < sum(f.stat().st_size for f in files) <= 15_000_000
    assert {f.suffix for f in files} <= {".safetensors", ".json", ".yaml", ".md"}


def test_clt_folder_is_circuit_tracer_format() -> None:
    folder = demo_clt_path()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model_kind"] == "cross_layer_transcoder"
    assert config["feature_input_hook"] == "mlp.hook_in"
    assert config["feature_output_hook"] == "hook_mlp_out"
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found[file.name] = {
                name: (tensors.get_slice(name).get_dtype(), tensors.get_slice(name).get_shape())
                for name in tensors.keys()  # noqa: SIM118 (a safe_open is not iterable)
            }
    assert len(found) == 2 * L
    for layer in range(L):
        assert found[f"W_enc_{layer}.safetensors"] == {
            f"W_enc_{layer}": ("F32", [F, D]),
            f"b_enc_{layer}": ("F32", [F]),
            f"b_dec_{layer}": ("F32", [D]),
            f"threshold_{layer}": ("F32", [F]),
        }
        assert found[f"W_dec_{layer}.safetensors"] == {
            f"W_dec_{layer}": ("BF16", [F, L - layer, D])
        }


def test_clt_values_are_finite_and_thresholds_positive() -> None:
    for file in demo_clt_path().glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                assert tensors.get_tensor(name).isfinite().all(), name
                assert "threshold" not in name or (tensors.get_tensor(name) > 0).all()


def test_every_pool_word_is_one_token(tokenizer: Any) -> None:
    for task in TASKS.values():
        assert task.fitted(tokenizer) == task
    for word in (*NAMES, *ARGUMENTS):
        assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1


def test_tokenizer_puts_bos_first_and_comes_back(tokenizer: Any) -> None:
    text = "Then, Alice went to the market.\n  \tZwölf: 1457 €"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


@pytest.mark.parametrize("name", ["ioi", "ioi-wide", "docstring", "docstring-wide"])
def test_accuracy(name: str, model: Any, tokenizer: Any) -> None:
    prompts = load_behavior(name, tokenizer=tokenizer, n_selection=0, n_held_out=64, seed=99)
    by_length: dict[int, list[Any]] = {}
    for p in prompts.held_out:
        by_length.setdefault(len(p), []).append(p)
    right = 0
    for same in by_length.values():
        with torch.no_grad():
            logits = model(torch.tensor([p.tokens for p in same])).logits[:, -1]
        right += sum(int(i) == p.answer for i, p in zip(logits.argmax(-1), same, strict=True))
    assert right / 64 >= 0.98


def test_missing_data_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "files", lambda _: tmp_path)
    with pytest.raises(CheckpointError, match=r"the demo's clt folder is missing: .*reinstall"):
        demo_clt_path()
