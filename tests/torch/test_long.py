"""A prompt of 2,000 tokens: what is kept grows with the length, not with its square."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import tiny
from pie_fast.attribution import gate_effects
from pie_fast.behaviors import Prompt
from pie_fast.model import Setup, Switches, lean, make_batch
from pie_fast.replacement_model import ReplacementModel, load_model

LONG = 2000


def long_prompt(length: int = LONG, seed: int = 0) -> Prompt:
    rng = np.random.default_rng(seed)
    tokens, other = rng.integers(1, tiny.VOCAB, (2, length)).tolist()
    return Prompt((0, *tokens[1:]), answer=3, foil=5, counterfactual=(0, *other[1:]))


def long_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=tiny.VOCAB,
        n_positions=2048,
        n_embd=tiny.D_MODEL,
        n_layer=tiny.N_LAYERS,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    return GPT2LMHeadModel(config)


def long_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny.VOCAB,
        hidden_size=tiny.D_MODEL,
        intermediate_size=48,
        num_hidden_layers=tiny.N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module", params=[long_gpt2, long_llama], ids=["gpt2", "llama"])
def model(
    request: pytest.FixtureRequest, tiny_model: ReplacementModel, tiny_folders: tuple[Path, Path]
) -> ReplacementModel:
    tokenizer = tiny_model.host.bridge.tokenizer
    return load_model(request.param(), str(tiny_folders[1]), tokenizer=tokenizer, device="cpu")


def tensors_alive() -> Iterator[torch.Tensor]:
    gc.collect()
    return (found for found in gc.get_objects() if type(found) is torch.Tensor)


class Kept:
    """The sizes of what autograd saves."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tensor.numel())
        return tensor

    def hooks(self) -> Any:
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda x: x)


def prepared(model: ReplacementModel, length: int, **switches: str) -> Setup:
    return model.prepare(make_batch([long_prompt(length)], model.device), Switches(**switches))


def test_nothing_quadratic_is_kept(model: ReplacementModel) -> None:
    setup = prepared(model, LONG)
    assert setup.patterns is None
    assert max(found.numel() for found in tensors_alive()) < LONG**2
    kept = Kept()
    with kept.hooks():
        effects = gate_effects(model, setup, "logit-diff")
    assert len(kept.sizes) > 10
    assert max(kept.sizes) < LONG**2
    assert all(bool(e.isfinite().all()) for e in effects.effects)
    assert any(bool(e.any()) for e in effects.effects)


def test_frozen_attention_keeps_its_patterns(model: ReplacementModel) -> None:
    setup = prepared(model, 20, attention="freeze")
    assert setup.patterns is not None
    assert [tuple(p.shape) for p in setup.patterns] == [(1, 4, 20, 20)] * tiny.N_LAYERS


# Where a Llama's norms are constants the bridge says that it takes another path.
@pytest.mark.filterwarnings("ignore:A forward hook edited")
@pytest.mark.parametrize("attention", ["recompute", "freeze"])
@pytest.mark.parametrize("gradient", ["full", "frozen", "relp", "relp-ah", "gim"])
def test_attention_computed_twice_gives_the_same_effects(
    model: ReplacementModel, monkeypatch: pytest.MonkeyPatch, gradient: str, attention: str
) -> None:
    setup = prepared(model, 30, attention=attention)
    once = gate_effects(model, setup, "logit-diff", gradient=gradient)
    monkeypatch.setattr("pie_fast.model.host.LONG", 30)
    kept = Kept()
    with kept.hooks():
        twice = gate_effects(model, setup, "logit-diff", gradient=gradient)
    for a, b in zip(once.effects, twice.effects, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert lean.LONG > 30, "short prompts do not take the second run"
