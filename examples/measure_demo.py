"""Measure the embedded demo model and its transcoder: every number of its model card.

    python examples/measure_demo.py

Plain torch on the HuggingFace model with forward hooks on its MLPs; it uses none of the library's
own model code, so that it can also check it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo_corpus import batch
from pie_fast.behaviors import Behavior, Prompt, known_behaviors, load_behavior
from pie_fast.behaviors.registry import SMALL_TASKS

DEMO = Path("python/pie_fast/data/demo")


class Replacement:
    """The model with every MLP output rebuilt from features."""

    def __init__(self, model_dir: Path, clt_dir: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
        self.model.requires_grad_(False)
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir)
        self.blocks = self.model.transformer.h
        self.n_layers = len(self.blocks)
        clt: dict[str, torch.Tensor] = {}
        for file in sorted(clt_dir.glob("*.safetensors")):
            clt |= load_file(file)
        self.w = {name: tensor.float() for name, tensor in clt.items()}
        self.n_features = self.w["W_enc_0"].shape[0]

    def encode(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """``[..., d]`` MLP inputs to ``[..., F]`` activations (JumpReLU)."""
        pre = x @ self.w[f"W_enc_{layer}"].T + self.w[f"b_enc_{layer}"]
        return pre * (pre > self.w[f"threshold_{layer}"])

    def run(self, ids: torch.Tensor, hook: Any) -> torch.Tensor:
        """Logits with ``hook(layer, mlp_in, mlp_out) -> new mlp_out | None`` on every MLP."""
        handles = [
            block.mlp.register_forward_hook(lambda _, args, out, i=i: hook(i, args[0], out))
            for i, block in enumerate(self.blocks)
        ]
        try:
            return self.model(ids).logits
        finally:
            for handle in handles:
                handle.remove()

    def rebuild(self, acts: list[torch.Tensor], layer: int) -> torch.Tensor:
        """``[..., d]`` output of one layer from the activations of the layers up to it."""
        out = self.w[f"b_dec_{layer}"]
        for source in range(layer + 1):
            out = out + acts[source] @ self.w[f"W_dec_{source}"][:, layer - source]
        return out

    @torch.no_grad()
    def clean(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Logits, activations ``[L, batch, pos, F]`` and errors per layer of the plain model."""
        acts: list[torch.Tensor] = []
        errors: list[torch.Tensor] = []

        def hook(layer: int, x: torch.Tensor, out: torch.Tensor) -> None:
            acts.append(self.encode(layer, x))
            errors.append(out - self.rebuild(acts, layer))

        logits = self.run(ids, hook)
        return logits, torch.stack(acts), errors

    def circuit(
        self,
        ids: torch.Tensor,
        errors: list[torch.Tensor] | None,
        keep: torch.Tensor | None = None,
        base: torch.Tensor | None = None,
        nudge: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits with the kept features (``[L, F]`` bool; None: all) recomputed, the rest at
        ``base``, errors kept or dropped, and ``nudge`` added to the activations."""
        acts: list[torch.Tensor] = []

        def hook(layer: int, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            act = self.encode(layer, x)
            if keep is not None and base is not None:
                act = torch.where(keep[layer], act, base[layer])
            acts.append(act if nudge is None else act + nudge[layer])
            out = self.rebuild(acts, layer)
            return out if errors is None else out + errors[layer]

        return self.run(ids, hook)


Group = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def groups(prompts: tuple[Prompt, ...], size: int = 32) -> list[Group]:
    """Prompts of equal length together: ids, counterfactual ids, answers, foils, positions."""
    by_length: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        by_length.setdefault(len(prompt), []).append(prompt)
    out = []
    for same in by_length.values():
        for i in range(0, len(same), size):
            part = same[i : i + size]
            columns = zip(
                *((p.tokens, p.counterfactual, p.answer, p.foil, p.answer_position) for p in part),
                strict=True,
            )
            out.append(tuple(torch.tensor(column) for column in columns))
    return out  # type: ignore[return-value]


def at(logits: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """``[batch, vocab]`` log-probabilities at each prompt's answer position."""
    return logits[torch.arange(len(position)), position].log_softmax(-1)


def kl(clean: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``[batch]`` KL(clean || other) of log-probabilities, in nats."""
    return (clean.exp() * (clean - other)).sum(-1)


def behaviour_numbers(r: Replacement, behavior: Behavior) -> dict[str, float]:
    """Accuracy, and fidelity with every feature kept and errors dropped, on held-out prompts."""
    top1, beats, kls = [], [], []
    for ids, _, answer, foil, position in groups(behavior.held_out):
        with torch.no_grad():
            logits, _, _ = r.clean(ids)
            clean, dropped = at(logits, position), at(r.circuit(ids, None), position)
        rows = torch.arange(len(ids))
        top1.append((clean.argmax(-1) == answer).float())
        beats.append((clean[rows, answer] > clean[rows, foil]).float())
        kls.append(kl(clean, dropped))
    mean_kl = float(torch.cat(kls).mean())
    return {
        "top1": float(torch.cat(top1).mean()),
        "beats_foil": float(torch.cat(beats).mean()),
        "kl_errors_dropped": mean_kl,
        "fidelity_errors_dropped": 1 - min(mean_kl, 1.0),
    }


def fap_scores(r: Replacement, behavior: Behavior) -> torch.Tensor:
    """``[prompt, L, F]`` sum over positions of gradient * (activation - counterfactual's)."""
    scores = []
    for ids, other, answer, foil, position in groups(behavior.selection):
        _, acts, errors = r.clean(ids)
        _, base, _ = r.clean(other)
        nudge = torch.zeros_like(acts, requires_grad=True)
        logits = r.circuit(ids, errors, nudge=nudge)
        rows = torch.arange(len(ids))
        metric = logits[rows, position, answer] - logits[rows, position, foil]
        (gradient,) = torch.autograd.grad(metric.sum(), nudge)
        scores.append((gradient * (acts - base)).sum(2).transpose(0, 1))
    return torch.cat(scores)


@torch.no_grad()
def fidelity(r: Replacement, prompts: tuple[Prompt, ...], keep: torch.Tensor) -> float:
    """1 - min(mean KL, 1) of the circuit that keeps ``keep`` ``[L, F]``, errors kept."""
    kls = []
    for ids, other, _, _, position in groups(prompts):
        logits, _, errors = r.clean(ids)
        _, base, _ = r.clean(other)
        got = r.circuit(ids, errors, keep, base)
        kls.append(kl(at(logits, position), at(got, position)))
    return 1 - min(float(torch.cat(kls).mean()), 1.0)


def curve(r: Replacement, behavior: Behavior, budgets: list[int]) -> dict[str, Any]:
    """Held-out fidelity of the plain mean-|FAP| circuit at each budget."""
    scores = fap_scores(r, behavior).abs().mean(0)
    order = scores.flatten().argsort(descending=True)
    out = {}
    for k in budgets:
        keep = torch.zeros(scores.numel(), dtype=torch.bool)
        keep[order[:k]] = True
        out[str(k)] = round(fidelity(r, behavior.held_out, keep.view_as(scores)), 4)
    return {"n_active": int((scores > 0).sum()), "fidelity": out}


@torch.no_grad()
def reconstruction(r: Replacement, n_batches: int) -> dict[str, Any]:
    """R2 per layer and active features per token and layer, on fresh documents.

    The first position (BOS) is constant and left out of R2; its own relative squared error, and
    the features active on it, stand beside.
    """
    errors, totals, active = (torch.zeros(r.n_layers) for _ in range(3))
    outs: list[list[torch.Tensor]] = [[] for _ in range(r.n_layers)]
    n, bos = 0, {}
    for i in range(n_batches):
        for kind in ("long", "short"):
            data = batch(r.tokenizer, kind, f"measure/{i}")
            mask = data.mask.clone()
            mask[:, 0] = False
            mlp_out: list[torch.Tensor] = []
            r.run(data.ids, lambda _layer, _x, out, to=mlp_out: to.append(out))
            _, acts, error = r.clean(data.ids)
            n += int(mask.sum())
            for layer in range(r.n_layers):
                errors[layer] += error[layer][mask].pow(2).sum()
                outs[layer].append(mlp_out[layer][mask])
                active[layer] += (acts[layer][mask] != 0).sum()
            bos = {
                "active": (acts[:, 0, 0] != 0).sum(-1).tolist(),
                "relative_error": [
                    round(float(e[0, 0].pow(2).sum() / o[0, 0].pow(2).sum()), 5)
                    for e, o in zip(error, mlp_out, strict=True)
                ],
            }
    for layer in range(r.n_layers):
        y = torch.cat(outs[layer])
        totals[layer] = (y - y.mean(0)).pow(2).sum()
    return {
        "tokens": n,
        "r2": [round(v, 4) for v in (1 - errors / totals).tolist()],
        "active_per_token": [round(v, 1) for v in (active / n).tolist()],
        "bos": bos,
    }


def main() -> None:
    """Print everything as JSON, one block after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEMO / "model")
    parser.add_argument("--clt", type=Path, default=DEMO / "clt")
    parser.add_argument("--behaviors", nargs="*", default=list(known_behaviors()))
    parser.add_argument("--budgets", nargs="*", type=int, default=[20, 35, 50, 75, 100, 200])
    parser.add_argument("--n-selection", type=int, default=96)
    parser.add_argument("--n-held-out", type=int, default=128)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    r = Replacement(args.model, args.clt)
    print(json.dumps({"reconstruction": reconstruction(r, args.batches)}), flush=True)
    for name in args.behaviors:
        behavior = load_behavior(
            name,
            tokenizer=r.tokenizer,
            n_selection=min(args.n_selection, SMALL_TASKS.get(name, 10**9) // 2),
            n_held_out=min(args.n_held_out, SMALL_TASKS.get(name, 10**9) // 2),
            seed=args.seed,
        )
        numbers = behaviour_numbers(r, behavior) | curve(r, behavior, args.budgets)
        print(json.dumps({name: numbers}), flush=True)


if __name__ == "__main__":
    main()
