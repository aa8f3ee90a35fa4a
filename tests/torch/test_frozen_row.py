"""`gradient="frozen"` is circuit-tracer's attribution row, worked out without circuit-tracer.

FORMATS of circuit-tracer's replacement model: the model's own MLP outputs flow forward and carry no
gradient, attention patterns and norm scales are constants, a feature's score is its direct effect
on the target. The oracle differentiates nothing: what is left is linear, so it carries every
feature's writes forward by itself (`PlainGpt2.direct`) and reads the target off the end.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM

import tiny
from pie_fast.attribution import gate_effects
from pie_fast.behaviors import Prompt
from pie_fast.errors import PieFastError
from pie_fast.model import Switches, make_batch
from pie_fast.positions import n_ignored
from pie_fast.replacement_model import ReplacementModel, load_model
from plain_gpt2 import PlainClt, PlainGpt2, Seen
from torch_prompts import random_prompts

TARGETS = ("logit", "logit-diff")


def target_vector(gpt2: PlainGpt2, prompt: Prompt, target: str) -> Tensor:
    """circuit-tracer's: a mean-centred column of the unembedding, or the difference of two."""
    answer = gpt2.unembedding[:, prompt.answer]
    if target == "logit":
        return answer - gpt2.unembedding.mean(-1)
    assert prompt.foil is not None
    return answer - gpt2.unembedding[:, prompt.foil]


def oracle(
    gpt2: PlainGpt2, clt: PlainClt, prompt: Prompt, target: str, n_zero: int
) -> tuple[list[Tensor], Seen]:
    """Per layer `[n_pos, n_features]`: a feature's activation times its direct effect."""
    seen = gpt2.run(prompt.tokens)
    n_pos, d_model = seen.embedded.shape
    vector = target_vector(gpt2, prompt, target)
    rows = []
    for layer, read in enumerate(seen.reads):
        acts = clt.encode(layer, read)
        acts[:n_zero] = 0
        row = torch.zeros_like(acts)
        places = acts.nonzero().tolist()
        writes = [torch.zeros(len(places), n_pos, d_model).double() for _ in range(clt.n_layers)]
        for n, (t, feature) in enumerate(places):
            for layer_to in range(layer, clt.n_layers):
                writes[layer_to][n, t] = acts[t, feature] * clt.row(layer, feature, layer_to)
        end = gpt2.direct(seen, torch.zeros(len(places), n_pos, d_model).double(), writes)
        for n, (t, feature) in enumerate(places):
            row[t, feature] = end[n, prompt.answer_position] @ vector
        rows.append(row)
    return rows, seen


def frozen_row(model: ReplacementModel, prompt: Prompt, metric: str) -> list[Tensor]:
    """The same by one backward pass of ours."""
    setup = model.prepare(make_batch([prompt], model.device), Switches("zero"))
    found = gate_effects(model, setup, metric, gradient="frozen")
    rows = []
    for columns, effects in zip(found.activations, found.effects, strict=True):
        row = torch.zeros(len(prompt), model.clt.n_features).double()
        row[:, columns.ids] = (effects[0] * setup.counted[0, :, None]).double()
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def plain(tiny_folders: tuple[Path, Path]) -> tuple[PlainGpt2, PlainClt]:
    return PlainGpt2(tiny_folders[0]), PlainClt(tiny_folders[1], tiny.N_LAYERS)


@pytest.mark.parametrize("ignore", ["auto", "circuit-tracer", 0, 3])
@pytest.mark.parametrize("target", TARGETS)
def test_the_frozen_row_is_circuit_tracers(
    tiny_folders: tuple[Path, Path],
    plain: tuple[PlainGpt2, PlainClt],
    target: str,
    ignore: int | str,
) -> None:
    model = load_model(*map(str, tiny_folders), device="cpu", ignore_positions=ignore)
    n_zero = 1 if isinstance(ignore, str) else ignore
    compared = 0
    for prompt in random_prompts(4):
        expected, _ = oracle(*plain, prompt, target, n_zero)
        found = frozen_row(model, prompt, target)
        largest = max(float(row.abs().max()) for row in expected)
        assert largest > 0.1
        for ours, theirs in zip(found, expected, strict=True):
            assert float((ours - theirs).abs().max()) < 1e-5 * max(largest, 1)
            compared += int((theirs != 0).sum())
    assert compared > 100


def test_a_prompt_without_bos_ignores_its_first_token_as_circuit_tracer_does(
    tiny_folders: tuple[Path, Path], plain: tuple[PlainGpt2, PlainClt]
) -> None:
    prompt = Prompt((7, 12, 5, 44, 12), answer=3, foil=5)
    for ignore, n_zero in (("auto", 0), ("circuit-tracer", 1)):
        model = load_model(*map(str, tiny_folders), device="cpu", ignore_positions=ignore)
        expected, _ = oracle(*plain, prompt, "logit-diff", n_zero)
        for ours, theirs in zip(frozen_row(model, prompt, "logit-diff"), expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("gradient", ["frozen", "full"])
def test_nothing_flows_through_the_mlp_of_an_ignored_position(
    tiny_folders: tuple[Path, Path], gradient: str
) -> None:
    """Its MLP output is a constant, so an answer that is read there depends on no feature."""
    model = load_model(*map(str, tiny_folders), device="cpu", ignore_positions="circuit-tracer")
    prompt = replace(random_prompts(1)[0], answer_position=0)
    setup = model.prepare(make_batch([prompt], model.device), Switches("zero"))
    found = gate_effects(model, setup, "logit-diff", gradient=gradient)
    assert any(bool(columns.values[0, 0].any()) for columns in found.activations)
    for effects in found.effects:
        assert not bool(effects[0].any())


def tiny_gemma2(folder: Path, softcap: float | None) -> Path:
    torch.manual_seed(2)
    config = Gemma2Config(
        vocab_size=tiny.VOCAB,
        hidden_size=tiny.D_MODEL,
        intermediate_size=48,
        num_hidden_layers=tiny.N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=tiny.N_CTX,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
        final_logit_softcapping=softcap,
    )
    Gemma2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
@pytest.mark.parametrize("target", TARGETS)
def test_the_softcap_of_the_logits_is_not_in_the_frozen_row(
    tiny_folders: tuple[Path, Path], tmp_path: Path, target: str
) -> None:
    prompt = random_prompts(1)[0]
    capped, free = (
        load_model(tiny_gemma2(tmp_path / str(cap), cap), tiny_folders[1], device="cpu")
        for cap in (1.0, None)
    )
    rows = [frozen_row(model, prompt, target) for model in (capped, free)]
    assert max(float(row.abs().max()) for row in rows[1]) > 0.01
    for one, other in zip(*rows, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    setups = [m.prepare(make_batch([prompt], m.device), Switches("zero")) for m in (capped, free)]
    by_rule = {
        rule: [
            gate_effects(m, s, target, gradient=rule)
            for m, s in zip((capped, free), setups, strict=True)
        ]
        for rule in ("frozen", "full")
    }
    full = by_rule["full"]
    assert float((full[0].effects[0] - full[1].effects[0]).abs().max()) > 1e-3
    for ours, theirs in zip(by_rule["frozen"], full, strict=True):
        assert torch.allclose(ours.metric, theirs.metric, atol=1e-6), "no rule changes a value"


def test_choices_of_ignored_positions() -> None:
    assert n_ignored("auto", "gpt2") is None
    assert n_ignored("circuit-tracer", "google/gemma-2-2b") == 1
    assert n_ignored("circuit-tracer", "google/gemma-3-1b-it") == 4
    assert n_ignored(3, "google/gemma-3-1b-it") == 3


@pytest.mark.parametrize("wrong", ["bos", -1, 1.5, True, "-1", ""])
def test_other_choices_are_refused(tiny_folders: tuple[Path, Path], wrong: object) -> None:
    with pytest.raises(
        PieFastError, match="must be auto, circuit-tracer or a number of at least 0"
    ):
        load_model(*map(str, tiny_folders), device="cpu", ignore_positions=wrong)  # type: ignore[arg-type]
