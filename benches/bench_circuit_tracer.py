"""Scores of features beside circuit-tracer, which runs in a process and an environment of its own.

    CIRCUIT_TRACER_PYTHON=ENVIRONMENT/bin/python python benches/bench_circuit_tracer.py

`examples/compare_circuit_tracer.py --install circuit-tracer --env ENVIRONMENT` makes one.
Without one its rows say that it is not installed. Both run the demo model with frozen attention and
norms on the same token ids, one torch thread each. A call of theirs crosses a pipe, and its row
comes back through a file: 1 to 2 ms of its 40.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))  # the process is started there

from bench_attribution import BATCH, N_PROMPTS, fap
from compare_circuit_tracer import Row, Theirs, circuit_tracer
from harness import Peer, Suite, absent, suite
from pie_fast.behaviors import Prompt, load_behavior
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.replacement_model import ReplacementModel, load_model

TARGET = "logit-diff"
MANY = f"scores of {N_PROMPTS} prompts, demo model, frozen"
ONE = "every feature's score of one prompt, demo model, frozen"


@contextmanager
def their_process() -> Iterator[Theirs | None]:
    """circuit-tracer, where an environment of it is named."""
    python = os.environ.get("CIRCUIT_TRACER_PYTHON")
    if python is None:
        yield None
        return
    demo = str(demo_model_path()), str(demo_clt_path())
    with circuit_tracer(Path(python), *demo, threads=1) as theirs:
        yield theirs


def summed(row: Row, model: ReplacementModel) -> np.ndarray:
    """Effects of a row summed over positions, at the features' global ids."""
    layer, _, feature = row.keys.T
    ids = layer * model.clt.n_features + feature
    return np.bincount(ids, row.effect, minlength=model.clt.n_layers * model.clt.n_features)


def their_scores(theirs: Theirs, model: ReplacementModel, prompts: list[Prompt]) -> np.ndarray:
    """`[n_prompts, n_layers * n_features]` by a row of each prompt."""
    return np.stack([summed(theirs.row(prompt, TARGET)[0], model) for prompt in prompts])


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Float32 sums of two implementations, as a share of the largest score."""
    return np.allclose(ours, theirs, rtol=0, atol=1e-4 * float(np.abs(theirs).max()))


def bench(
    run: Suite, theirs: Theirs | None, model: ReplacementModel, prompts: list[Prompt]
) -> None:
    ours = partial(fap, model, gradient="frozen")
    rows, graph = absent("circuit-tracer"), absent("circuit-tracer")
    if theirs is not None:
        rows = Peer(partial(their_scores, theirs, model, prompts), gate=4, goal=10, rounds=2)
        graph = Peer(
            partial(theirs.graph, prompts[0]),
            gate=5,
            goal=10,
            same=False,
            note="it answers more: edges between features too",
        )
    compare = partial(run.compare, equal=same, target="model")
    compare(MANY, partial(ours, prompts, BATCH), {"circuit-tracer, row by row": rows})
    compare(ONE, partial(ours, prompts[:1], 1), {"circuit-tracer's full graph": graph})


def main() -> None:
    torch.set_num_threads(1)
    model = load_model(
        demo_model_path(), demo_clt_path(), device="cpu", ignore_positions="circuit-tracer"
    )
    behavior = load_behavior(
        "ioi", tokenizer=model.host.tokenizer, n_selection=N_PROMPTS, n_held_out=0
    )
    with suite() as run, their_process() as theirs:
        bench(run, theirs, model, list(behavior.selection))


if __name__ == "__main__":
    main()
