"""Our activations and frozen attribution rows beside circuit-tracer's, prompt by prompt.

    python examples/compare_circuit_tracer.py --python THEIR_ENVIRONMENT/bin/python
    python examples/compare_circuit_tracer.py --install SOURCE --env FOLDER

circuit-tracer needs TransformerLens 2 or 3 and pie_fast 4, so it runs in an environment of its own:
one that has it, or one that is made in FOLDER from SOURCE, whatever pip takes for it
(`git+https://github.com/decoderesearch/circuit-tracer`, or a checkout). Both get the same token
ids, one prompt at a time in turns, on the CPU with as many threads, and both leave position 0 out.
Exits with 1 where a tolerance is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pie_fast import __version__
from pie_fast.attribution import gate_effects, run_metric
from pie_fast.behaviors import Behavior, Prompt, load_behavior
from pie_fast.clt import Clt
from pie_fast.clt.activation import JumpReLU
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.model import Setup, Switches, make_batch
from pie_fast.replacement_model import ReplacementModel, load_model

WORKER = Path(__file__).with_name("circuit_tracer_worker.py")

TARGETS = ("logit", "logit-diff")

#: absolute for activations, of the largest entry of a row for rows
ACTIVATIONS, ROWS = 1e-4, 1e-3

#: an entry this near to its threshold may be on in one implementation and off in the other
NEAR = 1e-4

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """What one of the two found for a target of a prompt.

    Attributes:
        keys: `[n, 3]` int64 of the active entries: layer, position, feature.
        activation: `[n]`.
        effect: `[n]`, of each on the target.
        errors: `[n_layers, n_pos]`, effect of what the CLT misses.
        tokens: `[n_pos]`, effect of the embedded tokens.
    """

    keys: NDArray[np.int64]
    activation: Floats
    effect: Floats
    errors: Floats
    tokens: Floats


@dataclass(frozen=True)
class Agreement:
    """How far two rows are apart.

    Attributes:
        n_common: Entries that both have.
        activation: Largest difference.
        effect, errors, tokens: Largest difference, as a share of the largest entry of theirs.
        near: Entries of either within `NEAR` of their threshold, `L1:2@3` with their distance.
        alone: Entries that only one has, likewise, and that are not near.
    """

    n_common: int
    activation: float
    effect: float
    errors: float
    tokens: float
    near: tuple[str, ...]
    alone: tuple[str, ...]

    @property
    def missed(self) -> list[str]:
        """The tolerances that are not kept, in words."""
        found = []
        if self.n_common == 0:
            found.append("no entry in common")
        if not self.activation <= ACTIVATIONS:
            found.append(f"activations differ by {self.activation:.2g} > {ACTIVATIONS:g}")
        for what in ("effect", "errors", "tokens"):
            share = getattr(self, what)
            if not share <= ROWS:
                found.append(f"{what} differ by {share:.2g} > {ROWS:g} of the largest")
        if self.alone:
            found.append(f"only one has {', '.join(self.alone[:5])} ({len(self.alone)} in all)")
        return found


def compare(ours: Row, theirs: Row, thresholds: Floats) -> Agreement:
    """Two rows of one target.

    Args:
        thresholds: `[n_layers, n_features]` of the CLT, 0 for a ReLU.
    """
    at, mine, other = _matched(ours.keys, theirs.keys, thresholds.shape[1])
    margins = []
    for row in (ours, theirs):
        over = row.activation - thresholds[row.keys[:, 0], row.keys[:, 2]]
        margins.append({_name(k): float(m) for k, m in zip(row.keys, over, strict=True)})
    both = {_name(k) for k in at}
    margin = margins[1] | margins[0]
    near = {name for name, m in margin.items() if abs(m) < NEAR}
    alone = set(margin) - both - near
    return Agreement(
        len(at),
        float(np.abs(ours.activation[mine] - theirs.activation[other]).max(initial=0)),
        _share(ours.effect[mine], theirs.effect[other]),
        _share(ours.errors, theirs.errors),
        _share(ours.tokens, theirs.tokens),
        tuple(f"{name} ({margin[name]:.1g})" for name in sorted(near)),
        tuple(f"{name} ({margin[name]:.1g})" for name in sorted(alone)),
    )


def _matched(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], n_features: int
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.intp]]:
    """The common keys, and where either has them."""
    n_pos = 1 + int(max(ours[:, 1].max(initial=0), theirs[:, 1].max(initial=0)))
    flat = [(k[:, 0] * n_pos + k[:, 1]) * n_features + k[:, 2] for k in (ours, theirs)]
    _, mine, other = np.intersect1d(*flat, assume_unique=True, return_indices=True)
    return ours[mine], mine, other


def _name(key: NDArray[np.int64]) -> str:
    layer, position, feature = key.tolist()
    return f"L{layer}:{feature}@{position}"


def _share(ours: Floats, theirs: Floats) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    largest = float(np.abs(theirs).max(initial=0))
    apart = float(np.abs(ours - theirs).max(initial=0))
    return apart / largest if largest else apart


def our_row(model: ReplacementModel, prompt: Prompt, target: str) -> tuple[Row, float]:
    """Ours, and the seconds that activations and effects of the features took."""
    began = time.perf_counter()
    setup = model.prepare(make_batch([prompt], model.device), Switches("zero"))
    found = gate_effects(model, setup, target, gradient="frozen")
    seconds = time.perf_counter() - began
    keys, activations, effects = [], [], []
    for layer, (columns, effect) in enumerate(zip(setup.clean, found.effects, strict=True)):
        held = found.activations[layer].ids
        values = columns.at(held)[0] * setup.counted[0, :, None]
        position, slot = values.nonzero(as_tuple=True)
        keys.append(torch.stack([torch.full_like(slot, layer), position, held[slot]], 1))
        activations.append(values[position, slot])
        effects.append(effect[0, position, slot])
    errors, tokens = _rest_of_row(model, setup, target)
    arrays = (torch.cat(parts).numpy() for parts in (keys, activations, effects))
    return Row(*arrays, errors, tokens), seconds


def _rest_of_row(model: ReplacementModel, setup: Setup, target: str) -> tuple[Floats, Floats]:
    """Effects of the errors and of the embedded tokens, by the same gradient."""
    errors = tuple((e * setup.counted[..., None]).requires_grad_() for e in setup.error)
    embedded: list[torch.Tensor] = []

    def embed(x: torch.Tensor, hook: object) -> torch.Tensor:
        embedded.append(x.detach().requires_grad_())
        return embedded[0]

    with model.host.bridge.hooks(fwd_hooks=[("embed.hook_out", embed)]):
        run = model.run(replace(setup, error=errors), gradient="frozen")
    value = run_metric(setup, run, target).sum()
    given = [*errors, embedded[0]]
    grads = torch.autograd.grad(value, given)
    scores = [(g * x).sum(-1)[0].detach().numpy() for g, x in zip(grads, given, strict=True)]
    return np.stack(scores[:-1]), scores[-1]


class Theirs:
    """circuit-tracer in its own process."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder
        self.versions: dict[str, str] = self._answer()

    def row(self, prompt: Prompt, target: str) -> tuple[Row, float]:
        """Theirs, and the seconds that it took."""
        out = self._folder / "row.safetensors"
        words = {"target": target, "answer": prompt.answer, "foil": prompt.foil, "out": str(out)}
        seconds = self._ask({"tokens": prompt.tokens, **words})["seconds"]
        found = load_file(out)
        keys = np.stack([found[name] for name in ("layer", "position", "feature")], 1)
        names = ("activation", "effect", "errors", "tokens")
        return Row(keys, *(found[name] for name in names)), seconds

    def graph(self, prompt: Prompt) -> int:
        """Makes their whole attribution graph of the prompt's likeliest tokens; its nodes."""
        found: int = self._ask({"tokens": prompt.tokens, "graph": True})["nodes"]
        return found

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("circuit-tracer's process ended; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def circuit_tracer(python: Path, model: str, clt: str, threads: int) -> Iterator[Theirs]:
    """Start it and end it."""
    command = [str(python), str(WORKER), "--model", model, "--clt", clt, "--threads", str(threads)]
    offline = os.environ | ({"HF_HUB_OFFLINE": "1"} if Path(model).is_dir() else {})
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=offline
        ) as process,
    ):
        try:
            yield Theirs(process, Path(folder))
        finally:
            process.kill()


@dataclass(frozen=True)
class Compared:
    """All prompts of one behaviour and target.

    Attributes:
        agreements: One a prompt.
        ours, theirs: Seconds a prompt, each the median of its repetitions.
        batched: Seconds a prompt of ours with all prompts in one batch.
    """

    behavior: str
    target: str
    agreements: tuple[Agreement, ...]
    ours: float
    theirs: float
    batched: float


def thresholds_of(clt: Clt) -> Floats:
    """`[n_layers, n_features]`, 0 for a ReLU."""
    kinds = [clt.encoder(layer).activation for layer in range(clt.n_layers)]
    none = np.zeros(clt.n_features, np.float32)
    return np.stack([k.threshold.numpy() if isinstance(k, JumpReLU) else none for k in kinds])


def compare_behavior(
    model: ReplacementModel, theirs: Theirs, behavior: Behavior, target: str, repeat: int
) -> Compared:
    """Every selection prompt, in turns."""
    thresholds = thresholds_of(model.clt)
    agreements, our_seconds, their_seconds = [], [], []
    for prompt in behavior.selection:
        if prompt.answer_position != len(prompt) - 1:
            raise SystemExit("circuit-tracer reads its target at the last position only")
        spent: list[tuple[float, float]] = []
        for _ in range(repeat):
            (mine, a), (other, b) = our_row(model, prompt, target), theirs.row(prompt, target)
            spent.append((a, b))
        agreements.append(compare(mine, other, thresholds))
        our_seconds.append(median(a for a, _ in spent))
        their_seconds.append(median(b for _, b in spent))
    batch = make_batch(behavior.selection, model.device)
    batched = []
    for _ in range(repeat):
        began = time.perf_counter()
        gate_effects(model, model.prepare(batch, Switches("zero")), target, gradient="frozen")
        batched.append((time.perf_counter() - began) / len(batch))
    return Compared(
        behavior.name,
        target,
        tuple(agreements),
        median(our_seconds),
        median(their_seconds),
        median(batched),
    )


def table(found: Sequence[Compared]) -> list[str]:
    """Markdown."""
    lines = [
        "| behaviour | target | prompts | entries | activations | features | errors | tokens "
        "| near, alone | ours | ours, batched | theirs |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        each = one.agreements
        worst = [max(getattr(a, w) for a in each) for w in ("activation", "effect")]
        worst += [max(getattr(a, w) for a in each) for w in ("errors", "tokens")]
        near, alone = (sum(len(getattr(a, w)) for a in each) for w in ("near", "alone"))
        lines.append(
            f"| {one.behavior} | {one.target} | {len(each)} | {sum(a.n_common for a in each)} | "
            + " | ".join(f"{w:.1e}" for w in worst)
            + f" | {near}, {alone} | {one.ours * 1e3:.1f} ms | {one.batched * 1e3:.1f} ms | "
            f"{one.theirs * 1e3:.1f} ms |"
        )
    return lines


def report(found: Sequence[Compared], versions: dict[str, str], args: argparse.Namespace) -> str:
    """The table with what it was made with."""
    names = ("transformer-lens", "transformers", "torch")
    mine = ", ".join([f"pie-fast {__version__}", *(f"{name} {version(name)}" for name in names)])
    other = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        f"{args.prompts} prompts a behaviour (seed {args.seed}), {args.threads} threads, "
        f"{args.repeat} repetitions in turns, medians over prompts.",
        f"Ours: {mine}. Theirs: {other}.",
        "",
        *table(found),
    ]
    near = sorted({name for one in found for a in one.agreements for name in a.near})
    if near:
        lines += ["", f"Within {NEAR:g} of their threshold: {', '.join(near)}."]
    return "\n".join(lines)


def install(source: str, folder: Path) -> Path:
    """An environment with circuit-tracer; its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", source], check=True)
    return python


def update(path: Path, text: str) -> None:
    """Put the table between its marks."""
    old = path.read_text(encoding="utf-8")
    between = r"(?<=<!-- table: circuit-tracer -->).*?(?=<!-- /table -->)"
    new, n = re.subn(between, lambda _: f"\n\n{text}\n\n", old, flags=re.S)
    if n != 1:
        raise SystemExit(f"{path}: has no <!-- table: circuit-tracer --> ... <!-- /table -->")
    path.write_text(new, encoding="utf-8")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--python", type=Path, help="of an environment that has circuit-tracer")
    where.add_argument("--install", metavar="SOURCE", help="what pip installs circuit-tracer from")
    parser.add_argument(
        "--env", type=Path, default=Path("circuit-tracer-env"), help="where --install puts it"
    )
    parser.add_argument("--model", default=str(demo_model_path()), help="a GPT-2, or a hub id")
    parser.add_argument("--clt", default=str(demo_clt_path()))
    parser.add_argument("--behaviors", nargs="+", default=["ioi", "docstring"])
    parser.add_argument("--prompts", type=int, default=8, help="a behaviour")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=5, help="for the times")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--update", type=Path, help="a file whose marked table is replaced")
    args = parser.parse_args(argv)
    for name in ("prompts", "repeat", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Compare and print."""
    args = arguments(argv)
    python = args.python or install(args.install, args.env)
    torch.set_num_threads(args.threads)
    model = load_model(args.model, args.clt, device="cpu", ignore_positions="circuit-tracer")
    found = []
    with circuit_tracer(python, args.model, args.clt, args.threads) as theirs:
        for name in args.behaviors:
            behavior = load_behavior(
                name,
                tokenizer=model.host.tokenizer,
                n_selection=args.prompts,
                n_held_out=0,
                seed=args.seed,
            )
            for target in TARGETS:
                found.append(compare_behavior(model, theirs, behavior, target, args.repeat))
    text = report(found, theirs.versions, args)
    print(text)
    missed = [
        f"{one.behavior}, {one.target}, prompt {i}: {what}"
        for one in found
        for i, agreement in enumerate(one.agreements)
        for what in agreement.missed
    ]
    if missed:
        raise SystemExit("\n".join(["missed:", *missed]))
    if args.update is not None:
        update(args.update, text)


if __name__ == "__main__":
    main()
