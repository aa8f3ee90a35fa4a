"""Attribution on the demo model: one prompt, 256 prompts in batches, and circuits grown in batches.

    python benches/bench_attribution.py

One torch thread: on shared cores torch's pool waits for whoever holds the other one. Beside
circuit-tracer: bench_circuit_tracer.py. A 1B-shaped model on a GPU: bench_gpu.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from harness import Peer, Suite, suite
from pie_fast.attribution import gate_effects, run_metric
from pie_fast.behaviors import Prompt, load_behavior
from pie_fast.conditional import conditional_gradient
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.model import Replacer, Setup, Switches
from pie_fast.replacement_model import load_model

METRIC, N_PROMPTS, BATCH = "logit-diff", 256, 32
SWITCHES = Switches(baseline="zero")


def scores(model: Replacer, setup: Setup, gradient: str) -> np.ndarray:
    """``[n_prompts, n_layers * n_features]`` FAP scores of prepared prompts."""
    found = gate_effects(model, setup, METRIC, gradient=gradient)
    return summed(model, setup, [c.ids for c in found.activations], found.effects)


def summed(model: Replacer, setup: Setup, ids: Sequence[Any], effects: Sequence[Any]) -> np.ndarray:
    """Effects summed over the positions that count, at the features' global ids."""
    n = model.clt.n_features
    out = np.zeros((len(setup.batch), model.clt.n_layers * n))
    counted = setup.counted[..., None]
    for layer, (at, effect) in enumerate(zip(ids, effects, strict=True)):
        out[:, layer * n + at.cpu().numpy()] = (effect * counted).sum(1).double().numpy()
    return out


def fap(
    model: Replacer, prompts: Sequence[Prompt], batch_size: int, *, gradient: str = "full"
) -> np.ndarray:
    """Scores of every feature, prompt by prompt: preparing, forward, backward."""
    prepared = model.prepare_all(prompts, SWITCHES, batch_size=batch_size)
    return np.concatenate([scores(model, setup, gradient) for _, setup in prepared])


def plain(model: Replacer, prompts: Sequence[Prompt]) -> tuple[Any, Any, Any]:
    """The same replacement model, run forward and backward and nothing else."""
    setup = model.prepare_all(prompts, SWITCHES, batch_size=len(prompts))[0][1]
    run = model.run(setup, None, None, rest="free", gradient="full")
    terms = [columns.values for columns in run.terms]
    run_metric(setup, run, METRIC).sum().backward(inputs=terms)
    return setup, run, [term.grad for term in terms]


def same_scores(model: Replacer, ours: np.ndarray, theirs: Any) -> bool:
    """Gradient times value of the plain run is what we answer."""
    setup, run, grads = theirs
    pairs = zip(grads, run.deltas, run.terms, strict=True)
    effects = [(torch.zeros_like(c.values) if g is None else g) * d for g, d, c in pairs]
    return np.allclose(ours, summed(model, setup, [c.ids for c in run.terms], effects), atol=1e-6)


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """float32 sums in batches of another size."""
    return np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(np.abs(ours).max()))


def bench_fap(run: Suite, model: Replacer, prompts: Sequence[Prompt]) -> None:
    one = prompts[:1]
    run.compare(
        "scores of one prompt, demo model",
        partial(fap, model, one, 1),
        {
            "plain torch forward and backward": Peer(
                partial(plain, model, one), gate=0.8, note="of the same replacement model"
            )
        },
        equal=partial(same_scores, model),
        target="model",
    )
    run.compare(
        f"scores of {len(prompts)} prompts, demo model, in batches of {BATCH}",
        partial(fap, model, prompts, BATCH),
        {"one by one": Peer(partial(fap, model, prompts, 1), gate=2.5, rounds=2)},
        equal=close,
        target="model",
    )


def bench_growth(run: Suite, model: Replacer, prompts: Sequence[Prompt]) -> None:
    """Other circuits, so their agreement is told; the sets at batch 1 are the better ones."""
    active = np.flatnonzero(np.abs(fap(model, prompts, BATCH)).sum(0))
    grow = partial(conditional_gradient, model, prompts, active, 20, switches=SWITCHES)
    for batch, gate in ((5, 2), (20, 4)):
        common = len(np.intersect1d(grow(batch=batch).ids, grow(batch=1).ids))
        run.compare(
            f"conditional gradient, K=20 of {len(active)}, batch {batch}",
            partial(grow, batch=batch),
            {
                "batch 1": Peer(
                    partial(grow, batch=1),
                    gate=gate,
                    goal=batch,
                    same=False,
                    rounds=2,
                    note=f"{common} of 20 features are the same",
                )
            },
            equal=lambda ours, theirs: True,
            target="model",
        )


def main() -> None:
    torch.set_num_threads(1)
    loaded = load_model(demo_model_path(), demo_clt_path(), device="cpu")
    model = Replacer(loaded.host, loaded.clt)
    behavior = load_behavior(
        "ioi", tokenizer=loaded.host.tokenizer, n_selection=N_PROMPTS, n_held_out=1
    )
    prompts = list(behavior.behaviors)[:N_PROMPTS]
    with suite() as run:
        bench_fap(run, model, prompts)
        bench_growth(run, model, prompts[:32])


if __name__ == "__main__":
    main()
