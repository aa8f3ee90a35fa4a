"""How a capture grows with the number of prompts and with their length, and what was foretold.

    python benches/bench_prompts.py [--full]      # --full: to 4,096 prompts; Linux only

On a random Llama of 6 layers with 6 x 1,024 features, on one torch thread. Memory is anonymous
memory of this process, its peak above what it was before.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import pie_fast
from bench_memory import peak_anonymous
from harness import Suite, suite
from making_models import SMALL, random_behavior, random_model
from pie_fast.capture import capture
from pie_fast.estimate import Memory, Texts, memory
from pie_fast.ground import Ground
from pie_fast.model import Switches
from pie_fast.probe import probe, shape_of
from record import HELD, MISSED, Record

LENGTH, BATCH = 20, 32
LENGTHS = [125, 250, 500, 1000, 2000]
#: what is foretold may be so many times what a process takes, and the other way round
FACTOR = 2
MIB = 1024**2
#: MiB below which a process's own noise is what is measured
SMALLEST = 30


def seconds(model: pie_fast.ReplacementModel, folder: Path, n: int) -> float:
    """Of a capture of n prompts, the lesser of two."""
    spent = []
    for round_ in range(2):
        start = time.perf_counter()
        capture(
            model, random_behavior(SMALL, n, LENGTH), folder / f"{n}-{round_}", batch_size=BATCH
        )
        spent.append(time.perf_counter() - start)
        assert pie_fast.open_dump(folder / f"{n}-{round_}").n_prompts == n
        _remove(folder / f"{n}-{round_}")
    return min(spent)


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def same_answer(model: pie_fast.ReplacementModel, folder: Path) -> None:
    """Batches of 7 and of 32 score features alike."""
    behavior = random_behavior(SMALL, 64, LENGTH)
    one, other = (
        capture(model, behavior, folder / f"batch-{size}", batch_size=size) for size in (7, 32)
    )
    scores = one.score(), other.score()
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-6 * scores[0].max())
    assert scores[0].max() > 0


def peak(kind: str, n: int, length: int) -> tuple[float, float]:
    """MiB of n prompts in a process of its own: what it took, and what was told before.

    Args:
        kind: `capture`, or `prepare` for the prompts that a selection keeps.
        n: Prompts.
        length: Tokens of each.
    """
    command = [sys.executable, __file__, "--measure", kind, str(n), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took, said = (float(part) for part in done.stdout.split()[-2:])
    return took, said


def measure(kind: str, n: int, length: int) -> None:
    """Print both, in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clt").mkdir()
        model = random_model(SMALL, folder / "clt", "cpu")
        behavior = random_behavior(SMALL, n, length)
        # What the libraries set up once is no cost of the prompts.
        capture(model, random_behavior(SMALL, 1, 8), folder / "warm")
        gc.collect()
        if kind == "capture":
            took = peak_anonymous(
                lambda: capture(model, behavior, folder / "dump", batch_size=BATCH)
            )
            said = foretold(model, n, length, False).batch / MIB
        else:
            switches = Switches("counterfactual")
            took = peak_anonymous(
                lambda: Ground(model, behavior.selection, "kl", switches, batch_size=BATCH)
            )
            said = foretold(model, n, length, True).prepared / MIB
        print(took, said)


def foretold(model: pie_fast.ReplacementModel, n: int, length: int, keeps_prompts: bool) -> Memory:
    behavior = random_behavior(SMALL, n, length)
    found = probe(model, behavior, Switches("counterfactual"), "logit-diff")
    return memory(
        shape_of(model),
        found,
        Texts.of(behavior.selection),
        batch_size=BATCH,
        baseline="counterfactual",
        keeps_prompts=keeps_prompts,
    )


def told(run: Suite, title: str, kind: str, sizes: dict[int, tuple[int, int]]) -> None:
    """What was taken and told, the exponent, and a failure where the two are too far apart."""
    if run.only not in title:
        return
    run.n_gates += 1
    found = {n: peak(kind, *size) for n, size in sizes.items()}
    first, last = min(found), max(found)
    exponent = math.log(found[last][0] / found[first][0]) / math.log(last / first)
    rows = ", ".join(f"{n}: {took:.1f} (told {said:.1f})" for n, (took, said) in found.items())
    print(f"\n{title}, MiB: {rows}; exponent {exponent:.2f}", flush=True)
    worst = max(max(said / took, took / said) for took, said in found.values() if took > SMALLEST)
    state = HELD if worst <= FACTOR else MISSED
    run.records.append(
        Record(
            "E",
            title,
            f"{found[last][0]:.0f} MiB",
            "what was told",
            ratio=f"{worst:.2f}x",
            gate=f"<= {FACTOR:g}x",
            state=state,
            note=f"{rows}; exponent {exponent:.2f}",
        )
    )
    if state == MISSED:
        run.failures.append(f"{title}: {rows}, the gate is {FACTOR:g}x")


def main(run: Suite) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clt").mkdir()
        model = random_model(SMALL, folder / "clt", "cpu")
        same_answer(model, folder)
        sizes = [16, 64, 256] + [1024, 4096] * run.full
        run.growth(
            "growth of a capture in prompts", lambda n: seconds(model, folder, n), sizes, 1.1, "E"
        )
    lengths = {n: (1, n) for n in LENGTHS}
    told(run, "memory of one prompt by its length", "capture", lengths)
    counts = {n: (n, LENGTH) for n in (32, 256, 1024)}
    told(run, "memory of a capture by prompts", "capture", counts)
    told(run, "memory of a selection's prompts", "prepare", counts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        with suite() as run:
            main(run)
