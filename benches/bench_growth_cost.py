"""What makes growing a circuit cheap, each gain alone and at equal answers.

    python benches/bench_growth_cost.py [--full]

On the demo model (4 layers) and on a deeper random one (12 layers of width 256), on one torch
thread. Ratios on shared cores move; what is gated is that no gain turns into a loss.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

import pie_fast
from harness import Peer, Suite, suite
from pie_fast.attribution import run_metric, sets_per_pass
from pie_fast.behaviors import Prompt
from pie_fast.conditional import grow
from pie_fast.ground import Ground

LAYERS, WIDTH, FEATURES, VOCAB, POSITIONS = 12, 256, 1024, 500, 16
#: features of a shortlist; the circuit that it is to join has so many
SHORTLIST, CIRCUIT = 16, 40


def deep(folder: Path) -> pie_fast.ReplacementModel:
    """A random GPT-2 with a random CLT."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=8,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.08,
    )
    GPT2LMHeadModel(config).save_pretrained(folder / "model")
    (folder / "clt").mkdir()
    for layer in range(LAYERS):
        encoder = {
            f"W_enc_{layer}": torch.randn(FEATURES, WIDTH) * WIDTH**-0.5,
            f"b_enc_{layer}": torch.full((FEATURES,), -1.5),
            f"b_dec_{layer}": torch.zeros(WIDTH),
        }
        decoder = {f"W_dec_{layer}": torch.randn(FEATURES, LAYERS - layer, WIDTH) * 0.02}
        save_file(encoder, folder / "clt" / f"W_enc_{layer}.safetensors")
        save_file(decoder, folder / "clt" / f"W_dec_{layer}.safetensors")
    return pie_fast.load_model(str(folder / "model"), str(folder / "clt"), device="cpu")


def random_prompts(n: int) -> list[Prompt]:
    rng = np.random.default_rng(0)

    def tokens() -> tuple[int, ...]:
        return (0, *rng.integers(1, VOCAB, POSITIONS - 1).tolist())

    return [Prompt(tokens(), answer=3, foil=5, counterfactual=tokens()) for _ in range(n)]


def whole_runs(ground: Ground, gates: torch.Tensor, at_once: int | None = None) -> np.ndarray:
    """`ground.values` without prefixes: every row from the first layer on, with all candidates."""
    parts = []
    for _, setup in ground.setups:
        n = at_once or sets_per_pass(setup)
        found = []
        for rows in gates.split(n):
            run = ground.model.run(setup, ground.pool, rows, rest="baseline")
            found.append(run_metric(setup, run, "kl"))
        parts.append(torch.cat(found).double().numpy())
    return np.concatenate(parts, 1)


def in_play(ground: Ground, gates: torch.Tensor) -> np.ndarray:
    """The same with the features alone that a row keeps."""
    used = (gates != 0).any(0)
    small = ground.afresh()
    small.pool = ground.model.make_pool(ground.pool.global_ids[used.numpy()])
    return whole_runs(small, gates[:, used])


def close(a: Any, b: Any) -> bool:
    return np.allclose(a, b, rtol=1e-3, atol=1e-4)


def gains(run: Suite, name: str, ground: Ground, one_by_one: Ground) -> None:
    """The rows of one model; `one_by_one` has the same prompts in batches of 1."""
    circuit = ground.positions(grow(ground, CIRCUIT).ids)
    base = ground.gates(circuit)
    slope = ground.mean(ground.marginals(base))
    slope[circuit] = -np.inf
    shortlist = np.argsort(-slope)[:SHORTLIST]
    gates = ground.gates(circuit, *(np.append(circuit, one) for one in shortlist))

    def table(title: str, ours: Callable[[], Any], peer: str, other: Peer) -> None:
        run.compare(f"{title}, {name}", ours, {peer: other}, equal=close, target="model")

    table(
        f"shortlist of {SHORTLIST} beside {CIRCUIT}",
        lambda: ground.values(gates),
        "no prefix",
        Peer(lambda: in_play(ground, gates), gate=0.8),
    )
    table(
        f"shortlist of {SHORTLIST} beside {CIRCUIT}, features kept alone",
        lambda: in_play(ground, gates),
        "every candidate in every run",
        Peer(lambda: whole_runs(ground, gates), gate=1.0),
    )
    table(
        f"masks batched, {len(gates)}",
        lambda: whole_runs(ground, gates),
        "one by one",
        Peer(lambda: whole_runs(ground, gates, 1)),
    )
    table(
        f"marginals of {len(ground)} on {len(ground.prompts)} prompts, batched",
        lambda: ground.marginals(base),
        "prompt by prompt",
        Peer(lambda: one_by_one.marginals(base), gate=1.0, rounds=5),
    )
    fast, slow = grow(ground, CIRCUIT), grow(ground, CIRCUIT, batch=1)
    fine = [-ground.values(ground.gates(ground.positions(g.ids))).mean() for g in (fast, slow)]
    note = f"another answer: mean KL {fine[0]:.3g}, one a pass {fine[1]:.3g}"
    table(
        f"conditional gradient, K={CIRCUIT}, 5 a pass",
        lambda: grow(ground, CIRCUIT),
        "1 a pass",
        Peer(lambda: grow(ground, CIRCUIT, batch=1), gate=2.0, same=False, note=note, rounds=2),
    )


def grounds(model: Any, prompts: Any, metric: str) -> tuple[Ground, Ground]:
    ground = Ground(model, prompts, metric)
    ids = ground.pool.global_ids
    return ground, Ground(model, prompts, metric, candidates=ids, batch_size=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with suite() as run, tempfile.TemporaryDirectory() as name:
        demo = pie_fast.load_model(
            pie_fast.demo_model_path(), pie_fast.demo_clt_path(), device="cpu"
        )
        n_prompts = 64 if run.full else 32
        ioi = pie_fast.load_behavior("ioi", tokenizer=demo.host.tokenizer, n_prompts=2 * n_prompts)
        gains(run, "demo, IOI", *grounds(demo, ioi.selection, ioi.metric))
        other = deep(Path(name))
        gains(run, "12 layers", *grounds(other, random_prompts(n_prompts // 2), "logit-diff"))
