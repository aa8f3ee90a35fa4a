"""The replacement model against a literal one: plain HuggingFace, plain hooks, plain loops."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

import tiny
from pie_fast.attribution import gate_effects, pool_effects, run_metric
from pie_fast.behaviors import Prompt
from pie_fast.clt.activation import JumpReLU
from pie_fast.model import Switches, make_batch
from pie_fast.model.assembly import Assembly
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts


class Literal:
    """The replacement model of one prompt, written out: DESIGN.md section 1."""

    def __init__(self, model: Path, clt: Path) -> None:
        self.hf = GPT2LMHeadModel.from_pretrained(model).eval()
        self.layers = []
        for layer in range(tiny.N_LAYERS):
            tensors = load_file(clt / f"W_enc_{layer}.safetensors")
            tensors |= load_file(clt / f"W_dec_{layer}.safetensors")
            self.layers.append({k.removesuffix(f"_{layer}"): v for k, v in tensors.items()})

    def encode(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        part = self.layers[layer]
        pre = x @ part["W_enc"].T + part["b_enc"]
        return torch.where(pre > part["threshold"], pre, torch.zeros_like(pre))

    def rebuild(self, target: int, acts: list[torch.Tensor]) -> torch.Tensor:
        out = self.layers[target]["b_dec"].clone()
        for source in range(target + 1):
            out = out + acts[source] @ self.layers[source]["W_dec"][:, target - source]
        return out

    def observe(self, tokens: tuple[int, ...]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Activations and MLP outputs of the model itself, `[n_pos, ...]` a layer."""
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hooks = [
            block.mlp.register_forward_hook(lambda _, x, y: seen.append((x[0][0], y[0])))
            for block in self.hf.transformer.h
        ]
        self.hf(torch.tensor([tokens]))
        for hook in hooks:
            hook.remove()
        return [self.encode(i, x) for i, (x, _) in enumerate(seen)], [y for _, y in seen]

    def run(
        self,
        prompt: Prompt,
        kept: set[tuple[int, int]],
        baseline: list[torch.Tensor],
        error: str,
    ) -> torch.Tensor:
        """Logits at the answer with `kept` recomputed and every other feature at baseline."""
        clean, own = self.observe(prompt.tokens)
        errors = [own[t] - self.rebuild(t, clean) for t in range(tiny.N_LAYERS)]
        acts: list[torch.Tensor] = []

        def replace(layer: int, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            fresh = self.encode(layer, x[0])
            now = baseline[layer].expand_as(fresh).clone()
            for source, index in kept:
                if source == layer:
                    now[:, index] = fresh[:, index]
            acts.append(now)
            rebuilt = self.rebuild(layer, acts)
            if error == "keep":
                rebuilt = rebuilt + errors[layer]
            rebuilt[0] = own[layer][0]  # the BOS keeps the model's own output
            return rebuilt[None]

        hooks = [
            block.mlp.register_forward_hook(lambda _, x, y, layer=layer: replace(layer, x[0], y))
            for layer, block in enumerate(self.hf.transformer.h)
        ]
        with torch.no_grad():
            logits = self.hf(torch.tensor([prompt.tokens])).logits[0, prompt.answer_position]
        for hook in hooks:
            hook.remove()
        return logits


@pytest.fixture(scope="module")
def literal(tiny_folders: tuple[Path, Path]) -> Literal:
    with torch.no_grad():
        return Literal(*tiny_folders)


def every_feature() -> list[tuple[int, int]]:
    return list(product(range(tiny.N_LAYERS), range(tiny.N_FEATURES)))


@pytest.mark.parametrize("baseline", ["zero", "mean", "counterfactual"])
def test_all_features_and_errors_are_the_model_itself(
    tiny_model: ReplacementModel, baseline: str
) -> None:
    prompts = random_prompts(5)
    setup = tiny_model.prepare(make_batch(prompts, tiny_model.device), Switches(baseline), prompts)
    hf = GPT2LMHeadModel.from_pretrained(tiny_model.host.name).eval()
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            own = hf(torch.tensor([prompt.tokens])).logits[0, prompt.answer_position]
        assert torch.allclose(setup.logits[i], own, atol=2e-5)
    with torch.no_grad():
        free = tiny_model.run(setup).logits[0]
        everything = tiny_model.make_pool(range(tiny.N_LAYERS * tiny.N_FEATURES))
        kept = tiny_model.run(setup, everything, rest="baseline").logits[0]
    assert torch.allclose(free, setup.logits, atol=2e-5)
    assert torch.allclose(kept, setup.logits, atol=2e-5)


@pytest.mark.parametrize(
    ("baseline", "error"), list(product(["zero", "mean", "counterfactual"], ["keep", "drop"]))
)
def test_circuits_equal_the_literal_replacement(
    tiny_model: ReplacementModel, literal: Literal, baseline: str, error: str
) -> None:
    prompts = random_prompts(4)
    rng = np.random.default_rng(7)
    kept = {every_feature()[i] for i in rng.choice(144, 20, replace=False)}
    setup = tiny_model.prepare(
        make_batch(prompts, tiny_model.device), Switches(baseline, error), prompts
    )
    pool = tiny_model.make_pool([layer * tiny.N_FEATURES + index for layer, index in kept])
    with torch.no_grad():
        ours = tiny_model.run(setup, pool, rest="baseline").logits[0]
        clean = [literal.observe(p.tokens)[0] for p in prompts]
        for i, prompt in enumerate(prompts):
            if baseline == "zero":
                base = [torch.zeros(tiny.N_FEATURES)] * tiny.N_LAYERS
            elif baseline == "mean":
                base = [torch.cat([c[layer][1:] for c in clean]).mean(0) for layer in range(3)]
            else:
                assert prompt.counterfactual is not None
                base = literal.observe(prompt.counterfactual)[0]
            assert torch.allclose(ours[i], literal.run(prompt, kept, base, error), atol=5e-5), (
                baseline,
                error,
                i,
            )


def test_gates_at_zero_are_ablation_of_those_features(
    tiny_model: ReplacementModel, literal: Literal
) -> None:
    prompt = random_prompts(1)[0]
    gone = {(0, 3), (1, 10), (2, 7)}
    setup = tiny_model.prepare(make_batch([prompt], tiny_model.device), Switches("zero"), [prompt])
    pool = tiny_model.make_pool([layer * tiny.N_FEATURES + index for layer, index in gone])
    with torch.no_grad():
        ours = tiny_model.run(setup, pool, torch.zeros(1, 3)).logits[0, 0]
        rest = set(every_feature()) - gone
        theirs = literal.run(prompt, rest, [torch.zeros(tiny.N_FEATURES)] * 3, "keep")
    assert torch.allclose(ours, theirs, atol=5e-5)


def test_a_prompt_alone_equals_the_prompt_in_a_padded_batch(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(6)
    switches = Switches("counterfactual")
    pool = tiny_model.make_pool(range(0, 144, 3))
    together = tiny_model.prepare(make_batch(prompts, tiny_model.device), switches, prompts)
    found = gate_effects(tiny_model, together, "logit-diff")
    effects = pool_effects(found, together, pool)[0]
    kept = tiny_model.run(together, pool, rest="baseline").logits[0]
    near = _near_threshold(tiny_model, prompts)
    for i, prompt in enumerate(prompts):
        alone = tiny_model.prepare(make_batch([prompt], tiny_model.device), switches, prompts)
        mine = pool_effects(gate_effects(tiny_model, alone, "logit-diff"), alone, pool)[0, 0]
        if near[i]:
            continue  # an entry within 1e-4 of its threshold may be on in one and off in the other
        assert torch.allclose(alone.logits[0], together.logits[i], atol=1e-5)
        assert torch.allclose(mine, effects[i], atol=1e-5)
        circuit = tiny_model.run(alone, pool, rest="baseline").logits[0, 0]
        assert torch.allclose(circuit, kept[i], atol=1e-5)
    assert sum(near) < len(prompts), "every prompt was excepted, so nothing was tested"


def _near_threshold(model: ReplacementModel, prompts: list[Prompt]) -> list[bool]:
    near = []
    for prompt in prompts:
        batch = make_batch([prompt], model.device)
        with torch.no_grad():
            reads, *_ = model._observe(batch.tokens, batch)
            gaps = [
                (e.pre_activations(x) - e.activation.threshold).abs().min().item()
                for e, x in zip(model.clt.encoders, reads, strict=True)
                if isinstance(e.activation, JumpReLU)
            ]
        near.append(min(gaps) < 1e-4)
    return near


@pytest.mark.parametrize("rest", ["free", "baseline"])
def test_effects_are_derivatives_of_the_metric_by_the_gates(
    tiny_model: ReplacementModel, rest: str
) -> None:
    """Central differences, small enough that almost no feature crosses its threshold."""
    prompts = random_prompts(4)
    setup = tiny_model.prepare(
        make_batch(prompts, tiny_model.device), Switches("counterfactual"), prompts
    )
    pool = tiny_model.make_pool([1, 20, 49, 60, 75, 100, 130, 143])
    start = torch.full((1, len(pool)), 0.5)
    found = gate_effects(tiny_model, setup, "logit-diff", pool=pool, gates=start, rest=rest)
    effects = pool_effects(found, setup, pool)[0]
    step, agreed, total = 4e-3, 0, 0
    for i in range(len(pool)):
        gates = start.repeat(2, 1)
        gates[0, i] -= step
        gates[1, i] += step
        with torch.no_grad():
            values = run_metric(setup, tiny_model.run(setup, pool, gates, rest=rest), "logit-diff")
        slope = (values[1] - values[0]) / (2 * step)
        agreed += int(torch.isclose(slope, effects[:, i], atol=2e-3, rtol=2e-2).sum())
        total += len(prompts)
    assert agreed >= 0.9 * total, f"{agreed} of {total} derivatives agree"


def test_frozen_gradient_of_the_last_layer_is_the_direct_effect(
    tiny_model: ReplacementModel,
) -> None:
    """There nothing is downstream but the final norm, whose scale is a constant of the backward."""
    prompt = random_prompts(1)[0]
    setup = tiny_model.prepare(make_batch([prompt], tiny_model.device), Switches("zero"), [prompt])
    found = gate_effects(tiny_model, setup, "logit-diff", gradient="frozen")
    hf = GPT2LMHeadModel.from_pretrained(tiny_model.host.name).eval()
    last = tiny.N_LAYERS - 1
    with torch.no_grad():
        stream = hf(torch.tensor([prompt.tokens]), output_hidden_states=True)
        raw: list[torch.Tensor] = []
        hook = hf.transformer.ln_f.register_forward_pre_hook(lambda _, x: raw.append(x[0]))
        hf(torch.tensor([prompt.tokens]))
        hook.remove()
        x = raw[0][0, prompt.answer_position]
        scale = ((x - x.mean()).pow(2).mean() + 1e-5).sqrt()
        assert stream.logits.shape[-1] == tiny.VOCAB
        assert prompt.foil is not None
        toward = hf.lm_head.weight[prompt.answer] - hf.lm_head.weight[prompt.foil]
        toward = toward * hf.transformer.ln_f.weight
        columns = found.activations[last]
        writes = tiny_model.clt.rows(last, columns.ids)[:, 0]
        writes = writes - writes.mean(-1, keepdim=True)
        acts = columns.values[0, prompt.answer_position]
        expected = acts * (writes @ toward) / scale
    effects = found.effects[last][0]
    assert torch.allclose(effects[prompt.answer_position], expected, atol=1e-5)
    assert bool((effects[: prompt.answer_position] == 0).all()), "earlier positions cannot matter"


def test_batches_of_gate_sets_equal_one_set_at_a_time(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(3)
    setup = tiny_model.prepare(
        make_batch(prompts, tiny_model.device), Switches("counterfactual"), prompts
    )
    pool = tiny_model.make_pool([4, 50, 51, 101])
    gates = torch.tensor(list(product([0.0, 1.0], repeat=4)))
    with torch.no_grad():
        for rest in ("free", "baseline"):
            whole = tiny_model.run(setup, pool, gates, rest=rest).logits
            for row in range(len(gates)):
                one = tiny_model.run(setup, pool, gates[row : row + 1], rest=rest).logits[0]
                assert torch.allclose(whole[row], one, atol=1e-5)


@pytest.mark.parametrize("error", ["keep", "drop"])
@pytest.mark.parametrize("attention", ["recompute", "freeze"])
@pytest.mark.parametrize("activations", ["recompute", "freeze"])
def test_layers_below_the_first_moved_one_are_the_clean_run(
    tiny_model: ReplacementModel,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    attention: str,
    activations: str,
) -> None:
    """Not running them must change nothing: neither what comes out nor any effect."""
    prompts = random_prompts(3)
    switches = Switches("counterfactual", error, attention, activations)
    batch = make_batch(prompts, tiny_model.device)
    ones = torch.ones(1, 6)
    found: list[list[torch.Tensor]] = []
    for shortened in (True, False):
        if not shortened:
            monkeypatch.setattr(Assembly, "_first_moved", lambda self: -1)
        setup = tiny_model.prepare(batch, switches, prompts)
        pool, out = tiny_model.make_pool([1, 20, 52, 60, 100, 130]), []
        for moved in ([], [0], [2], [3, 5], [4, 5], [1, 5]):
            gates = ones.clone()
            gates[0, moved] = 0.25
            with torch.no_grad():
                out.append(tiny_model.run(setup, pool, gates).logits)
            effects = gate_effects(tiny_model, setup, "logit-diff", pool=pool, gates=gates)
            out.append(pool_effects(effects, setup, pool))
        whole = gate_effects(tiny_model, setup, "logit-diff", pool=pool)
        found.append([*out, pool_effects(whole, setup, pool)])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=2e-5)
    assert found[0][-1].abs().max() > 0.01


def test_frozen_attention_and_activations_are_the_clean_runs(
    tiny_model: ReplacementModel,
) -> None:
    prompts = random_prompts(3)
    batch = make_batch(prompts, tiny_model.device)
    pool = tiny_model.make_pool(range(0, 144, 5))
    found = {}
    with torch.no_grad():
        for attention, activations in product(["recompute", "freeze"], repeat=2):
            switches = Switches("zero", "keep", attention, activations)
            setup = tiny_model.prepare(batch, switches, prompts)
            whole = tiny_model.run(setup).logits[0]
            assert torch.allclose(whole, setup.logits, atol=2e-5), "at the clean run all agree"
            kept = tiny_model.run(setup, pool, rest="baseline").logits
            found[attention, activations] = kept
    distinct = list(found.values())
    for i, one in enumerate(distinct):
        for other in distinct[i + 1 :]:
            assert not torch.allclose(one, other, atol=1e-3), "a switch changed nothing"
