"""Gradient rules: they change no value, and are what a transformer written out by hand gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2LMHeadModel

import tiny
from pie_fast.attribution import gate_effects
from pie_fast.behaviors import Prompt
from pie_fast.cli.common import Gradient
from pie_fast.errors import CheckpointError, PieFastError
from pie_fast.gradients import GRADIENTS, RULES
from pie_fast.model import Switches, make_batch
from pie_fast.model.backward import backward_hooks
from pie_fast.replacement_model import ReplacementModel, load_model
from torch_prompts import random_prompts


def partly(x: Tensor, share: float) -> Tensor:
    """x, with that share of its gradient."""
    return share * x + ((1 - share) * x).detach()


class Literal:
    """The replacement model of one prompt with the baseline at 0, no library but torch.

    Args:
        model, clt: Folders of `tiny`.
        rule: Of the backward pass, written here with `detach` only.
    """

    def __init__(self, model: Path, clt: Path, rule: str) -> None:
        hf = GPT2LMHeadModel.from_pretrained(model)
        self.weights = {name: p.detach() for name, p in hf.state_dict().items()}
        self.clt = {}
        for layer in range(tiny.N_LAYERS):
            for kind in ("enc", "dec"):
                self.clt |= load_file(clt / f"W_{kind}_{layer}.safetensors")
        self.rule = rule

    def effects(self, prompt: Prompt) -> list[Tensor]:
        """Per layer d (logit difference) / d activation * activation: `[n_pos, n_features]`."""
        errors = [m - r for m, r in zip(*self._clean(prompt), strict=True)]
        acts: list[Tensor] = []
        logits = self._logits(prompt, acts, errors)
        metric = logits[prompt.answer] - logits[prompt.foil or 0]
        grads = torch.autograd.grad(metric, acts, allow_unused=True, materialize_grads=True)
        return [g * a.detach() for g, a in zip(grads, acts, strict=True)]

    def _clean(self, prompt: Prompt) -> tuple[list[Tensor], list[Tensor]]:
        """MLP outputs of the model itself, and what the CLT makes of them."""
        outputs: list[Tensor] = []
        acts: list[Tensor] = []
        with torch.no_grad():
            self._logits(prompt, acts, None, outputs)
            return outputs, [self._rebuilt(layer, acts) for layer in range(tiny.N_LAYERS)]

    def _logits(
        self,
        prompt: Prompt,
        acts: list[Tensor],
        errors: list[Tensor] | None,
        outputs: list[Tensor] | None = None,
    ) -> Tensor:
        w = self.weights
        n_pos = len(prompt.tokens)
        x = w["transformer.wte.weight"][list(prompt.tokens)] + w["transformer.wpe.weight"][:n_pos]
        for layer in range(tiny.N_LAYERS):
            block = f"transformer.h.{layer}"
            x = x + self._attention(block, self._norm(f"{block}.ln_1", x))
            read = self._norm(f"{block}.ln_2", x)
            acts.append(self._encode(layer, read))
            if errors is None:
                hidden = self._linear(f"{block}.mlp.c_fc", read)
                hidden = torch.nn.functional.gelu(hidden, approximate="tanh")
                out = self._linear(f"{block}.mlp.c_proj", hidden)
                assert outputs is not None
                outputs.append(out)
            else:
                out = self._rebuilt(layer, acts) + errors[layer]
            x = x + out
        x = self._norm("transformer.ln_f", x)
        return x[prompt.answer_position] @ w["lm_head.weight"].T

    def _norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        if self.rule != "full":
            scale = scale.detach()
        return centred / scale * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _attention(self, block: str, x: Tensor) -> Tensor:
        n_pos, n_heads = len(x), 4
        parts = self._linear(f"{block}.attn.c_attn", x).split(tiny.D_MODEL, -1)
        q, k, v = (part.view(n_pos, n_heads, -1).transpose(0, 1) for part in parts)
        if self.rule == "gim":
            q, k, v = partly(q, 0.25), partly(k, 0.25), partly(v, 0.5)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        future = torch.ones(n_pos, n_pos, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
        pattern = scores.softmax(-1)
        if self.rule == "gim":
            # The derivative by scores / 2, so twice that by the scores.
            soft = 2 * (scores / 2).softmax(-1)
            pattern = pattern.detach() + soft - soft.detach()
        elif self.rule in ("frozen", "relp-ah"):
            pattern = pattern.detach()
        mixed = (pattern @ v).transpose(0, 1).reshape(n_pos, tiny.D_MODEL)
        return self._linear(f"{block}.attn.c_proj", mixed)

    def _encode(self, layer: int, x: Tensor) -> Tensor:
        if self.rule == "frozen":
            x = x.detach()
        pre = x @ self.clt[f"W_enc_{layer}"].T + self.clt[f"b_enc_{layer}"]
        on = pre > self.clt[f"threshold_{layer}"]
        on[0] = False  # the BOS has no features
        acts = torch.where(on, pre, torch.zeros_like(pre))
        return acts if acts.requires_grad else acts.requires_grad_()

    def _rebuilt(self, target: int, acts: list[Tensor]) -> Tensor:
        out = self.clt[f"b_dec_{target}"]
        for source in range(target + 1):
            out = out + acts[source] @ self.clt[f"W_dec_{source}"][:, target - source]
        return out


def effects(
    model: ReplacementModel, prompts: list[Prompt], rule: str, switches: Switches
) -> list[Tensor]:
    """Per layer `[batch, n_pos, n_features]`."""
    setup = model.prepare(make_batch(prompts, model.device), switches, prompts)
    found = gate_effects(model, setup, "logit-diff", gradient=rule)
    out = []
    for columns, values in zip(found.activations, found.effects, strict=True):
        whole = values.new_zeros(*values.shape[:2], tiny.N_FEATURES)
        whole[..., columns.ids] = values
        out.append(whole)
    return out


def distance(some: list[Tensor], others: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("rule", GRADIENTS)
def test_effects_are_those_of_the_model_written_out(
    tiny_model: ReplacementModel, tiny_folders: tuple[Path, Path], rule: str
) -> None:
    literal = Literal(*tiny_folders, rule)
    for prompt in random_prompts(3):
        ours = effects(tiny_model, [prompt], rule, Switches("zero"))
        theirs = [e[None] for e in literal.effects(prompt)]
        assert max(float(t.abs().max()) for t in theirs) > 0.1
        assert distance(ours, theirs) < 2e-4


def test_no_two_rules_agree(tiny_model: ReplacementModel) -> None:
    found = [effects(tiny_model, random_prompts(2), r, Switches("zero")) for r in GRADIENTS]
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            assert distance(one, other) > 1e-2


@pytest.mark.parametrize("rest", ["free", "baseline"])
def test_no_rule_changes_a_value(tiny_model: ReplacementModel, rest: str) -> None:
    prompts = random_prompts(4)
    batch = make_batch(prompts, tiny_model.device)
    setup = tiny_model.prepare(batch, Switches("counterfactual"), prompts)
    pool = tiny_model.make_pool(range(0, 144, 5))
    gates = torch.full((2, len(pool)), 0.5)
    gates[1, ::2] = 1.0
    runs = [tiny_model.run(setup, pool, gates, rest=rest, gradient=rule) for rule in GRADIENTS]
    assert bool((runs[0].logits[0] != runs[0].logits[1]).any())
    for run in runs[1:]:
        assert torch.equal(run.logits, runs[0].logits)
        for one, first in zip(run.terms, runs[0].terms, strict=True):
            assert torch.equal(one.ids, first.ids) and torch.equal(one.values, first.values)


def test_without_attention_its_rules_are_one(
    tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Heads that write nothing leave RelP's LN rule, whatever patterns are."""
    hf = GPT2LMHeadModel.from_pretrained(tiny_folders[0])
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_proj.weight.zero_()
    hf.save_pretrained(tmp_path)
    silent = load_model(str(tmp_path), str(tiny_folders[1]), device="cpu")
    found = {r: effects(silent, random_prompts(2), r, Switches("zero")) for r in GRADIENTS}
    for rule in ("relp-ah", "gim"):
        assert distance(found[rule], found["relp"]) < 1e-6
    for rule in ("full", "frozen"):
        assert distance(found[rule], found["relp"]) > 1e-2


def test_with_one_key_only_the_values_carry_anything(tiny_model: ReplacementModel) -> None:
    """The pattern of the first position is 1 whatever the scores: nothing flows through them."""
    alone = [Prompt((7,), answer=3, foil=5), Prompt((9,), answer=3, foil=5)]
    found = {r: effects(tiny_model, alone, r, Switches("zero")) for r in GRADIENTS}
    assert distance(found["relp"], found["relp-ah"]) < 1e-6
    assert distance(found["relp"], found["gim"]) > 1e-3


def test_with_frozen_attention_gim_and_relp_are_one(tiny_model: ReplacementModel) -> None:
    switches = Switches("zero", attention="freeze")
    found = {r: effects(tiny_model, random_prompts(3), r, switches) for r in GRADIENTS}
    assert distance(found["gim"], found["relp"]) == 0.0
    assert distance(found["relp-ah"], found["relp"]) == 0.0
    assert distance(found["full"], found["relp"]) > 1e-2


def test_gim_needs_the_scores() -> None:
    hooks = dict(backward_hooks(RULES["gim"], {}, 1))
    pattern = torch.ones(1, 1, 2, 2)
    with pytest.raises(CheckpointError, match="gradient 'gim' needs the attention scores"):
        hooks["blocks.0.attn.hook_pattern"](pattern)


def test_every_rule_has_its_name_on_the_command_line(tiny_model: ReplacementModel) -> None:
    assert tuple(Gradient) == GRADIENTS
    with pytest.raises(PieFastError, match="gradient is 'half', must be one of full, frozen, relp"):
        effects(tiny_model, random_prompts(1), "half", Switches("zero"))
