"""Options and output that commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pie_fast.cli.speech import reporter
from pie_fast.gradients import GRADIENTS
from pie_fast.method_names import METHODS
from pie_fast.positions import check_ignored

if TYPE_CHECKING:
    from pie_fast.behaviors import Behavior
    from pie_fast.dump import FeatureDump
    from pie_fast.engine import Engine
    from pie_fast.replacement_model import ReplacementModel


class RankBy(StrEnum):
    """How effects on prompts become one score."""

    signed = "signed"
    abs = "abs"
    mean_abs = "mean_abs"


class Baseline(StrEnum):
    """What features that are not kept are set to."""

    zero = "zero"
    mean = "mean"
    counterfactual = "counterfactual"


# Made of the names themselves, so that none is missing.
Gradient = StrEnum("Gradient", {name: name for name in GRADIENTS})  # type: ignore[misc]
Method = StrEnum("Method", {name: name for name in METHODS})  # type: ignore[misc]


class Direction(StrEnum):
    """Of importance and synergy."""

    noising = "noising"
    denoising = "denoising"


class Estimator(StrEnum):
    """How pair synergies are measured."""

    exact = "exact"
    gradient_difference = "gradient-difference"


class Metric(StrEnum):
    """What a behaviour is measured by."""

    logit_diff = "logit-diff"
    logprob = "logprob"
    prob_diff = "prob-diff"
    logit = "logit"


class Split(StrEnum):
    """The prompts that selection may look at, or those that only evaluation may."""

    selection = "selection"
    held_out = "held_out"


class Error(StrEnum):
    """What becomes of what the CLT misses."""

    keep = "keep"
    drop = "drop"


class Frozen(StrEnum):
    """Whether a replacement run computes something anew."""

    recompute = "recompute"
    freeze = "freeze"


class Unit(StrEnum):
    """What a circuit is made of."""

    feature = "feature"
    node = "node"


class Dtype(StrEnum):
    """Of the model's weights, and of its passes."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Autocast(StrEnum):
    """What passes are computed in where that is safe."""

    bfloat16 = "bfloat16"
    float16 = "float16"


class KlDirection(StrEnum):
    """Of the divergence that fidelity is made of."""

    from_model = "model||circuit"
    from_circuit = "circuit||model"


class Form(StrEnum):
    """Synergy as it is, or clipped at 0 as in the paper."""

    clipped = "clipped"
    signed = "signed"


class Bonus(StrEnum):
    """The synergies with what is selected: their mean (the paper's) or their sum."""

    mean = "mean"
    sum = "sum"


def _check_ignored(text: str) -> str:
    check_ignored(text)
    return text


def at_least(low: float) -> Callable[[Any], Any]:
    """An option's lower end; unlike typer's own `min`, its error tells the value."""

    def check(value: Any) -> Any:
        for one in value if isinstance(value, list) else [value]:
            if one is not None and not one >= low:
                raise typer.BadParameter(f"{one} is not valid, must be at least {low}")
        return value

    return check


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="HuggingFace checkpoint: a folder or a hub id.")
]
CltOption = Annotated[str, typer.Option("--clt", "-c", help="CLT: a folder or a hub id.")]


def _complete_behavior(incomplete: str) -> list[str]:
    from pie_fast.behaviors import known_behaviors

    return [name for name in known_behaviors() if name.startswith(incomplete)]


BehaviorOption = Annotated[
    str,
    typer.Option(
        "--behavior",
        "-b",
        autocompletion=_complete_behavior,
        help="Name of a behaviour, or a JSON Lines file.",
    ),
]
RunModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="By default that of the run.")
]
RunCltOption = Annotated[
    str | None, typer.Option("--clt", "-c", help="By default that of the run.")
]
RunBehaviorOption = Annotated[
    str | None, typer.Option("--behavior", "-b", help="By default that of the run.")
]
BudgetOption = Annotated[
    int, typer.Option("--budget", "-k", callback=at_least(1), help="How many features to keep (K).")
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where a run was stopped.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of prompts and random choices.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
IgnoreOption = Annotated[
    str,
    typer.Option(
        "--ignore-positions",
        callback=_check_ignored,
        metavar="auto|circuit-tracer|N",
        help="First positions without features: the BOS, circuit-tracer's, or so many.",
    ),
]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Of the model's weights.")]
AutocastOption = Annotated[
    Autocast | None,
    typer.Option("--autocast", help="Compute the model's passes in it where torch finds it safe."),
]
HooksOption = Annotated[
    str | None,
    typer.Option(
        "--hooks", metavar="READ,WRITE", help="Where the CLT reads and writes, if not as it says."
    ),
]
LazyOption = Annotated[
    bool, typer.Option("--lazy-encoder", help="Read encoders from disk layer by layer, hold none.")
]
IgnoreEstimateOption = Annotated[
    bool, typer.Option("--ignore-estimate", help="Run even where memory or disk seem too small.")
]
PromptsOption = Annotated[
    int | None,
    typer.Option("--prompts", callback=at_least(2), help="Prompts in both splits together."),
]
BatchOption = Annotated[
    int, typer.Option("--batch-size", callback=at_least(1), help="Prompts a batch.")
]
RankByOption = Annotated[RankBy, typer.Option("--rank-by", help="How features are ranked.")]
MetricOption = Annotated[
    Metric | None, typer.Option("--metric", help="By default the behaviour's own.")
]
BaselineOption = Annotated[
    Baseline | None,
    typer.Option("--baseline", help="By default counterfactual where there is one, else mean."),
]
GradientOption = Annotated[Gradient, typer.Option("--gradient", help="Rule of the gradient.")]
DirectionOption = Annotated[
    Direction,
    typer.Option(
        "--direction",
        help="Of the synergy: features taken out of the whole, or put into the empty circuit.",
    ),
]
EstimatorOption = Annotated[
    Estimator,
    typer.Option(
        "--estimator",
        help="Of the synergy: from differences of gradients, or exactly by patching pairs.",
    ),
]


def command_line() -> list[str]:
    """What was typed, for the record in what it made."""
    return ["pie-fast", *sys.argv[1:]]


def print_json(content: Any) -> None:
    """One JSON object on standard output."""
    json.dump(content, sys.stdout, allow_nan=False)
    sys.stdout.write("\n")


def check_place(place: str, *, force: bool) -> None:
    """Refuse to write where something is, by path or URL, unless it is to be replaced.

    Raises:
        OutputExistsError: Naming the place.
    """
    from pie_fast.errors import OutputExistsError
    from pie_fast.outputs import check_absent

    if "://" not in place:
        check_absent(Path(place), force=force)
        return
    from pie_fast.remote import exists

    if not force and exists(place):
        raise OutputExistsError(f"{place} exists; use --force to replace it")


def write_json_at(place: str, content: Any) -> None:
    """JSON to a path or a URL, whole or not at all."""
    from pie_fast.storage import write_json

    if "://" not in place:
        write_json(Path(place), content)
        return
    from pie_fast.remote import write_bytes

    write_bytes(place, json.dumps(content, indent=1, allow_nan=False).encode())


def open_noting(
    place: str | Path, engine: Engine | None = None, scratch: str | None = None
) -> FeatureDump:
    """A dump, with a note on standard error where its capture was stopped.

    Args:
        place: A folder or a URL.
        engine: What scores it; this process by default.
        scratch: Of the engine, see `pie_fast.spread`.

    Raises:
        DumpError: No dump is there; with where there is one, or what makes one.
    """
    from pie_fast.dump import open_dump

    if "://" not in str(place):
        _check_folder(Path(place))
    if engine is None:
        opened = open_dump(place)
    else:
        from pie_fast.spread import SpreadDump

        opened = SpreadDump(place, engine, scratch=scratch)
    if not opened.complete:
        planned = opened.manifest["n_prompts_planned"]
        reporter().note(
            f"{place} is incomplete: {opened.n_prompts} of {planned} prompts; pie-fast capture "
            "--resume with the options it was made with goes on"
        )
    return opened


def _check_folder(path: Path) -> None:
    from pie_fast.errors import DumpError

    if not path.exists():
        raise DumpError(f"{path}: no such folder; pie-fast capture makes a dump")
    if (path / "dump" / "manifest.json").exists() and not (path / "manifest.json").exists():
        raise DumpError(f"{path} is a run, not a dump; its dump is {path / 'dump'}")


def _two_hooks(text: str) -> tuple[str, str]:
    read, comma, write = text.partition(",")
    if not (read and comma and write) or "," in write:
        raise typer.BadParameter(f"--hooks {text!r} must be READ,WRITE: mlp.hook_in,hook_mlp_out")
    return read.strip(), write.strip()


@dataclass(frozen=True)
class Loading:
    """What commands that need a model load, and how."""

    model: str
    clt: str
    device: str
    dtype: Dtype = Dtype.float32
    autocast: Autocast | None = None
    ignore_positions: int | str | None = "auto"
    lazy_encoder: bool = False
    hooks: str | None = None

    def load(self) -> ReplacementModel:
        """The model with its CLT."""
        import torch

        from pie_fast.replacement_model import load_model

        with reporter().stage("load"):
            loaded = load_model(
                self.model,
                self.clt,
                device=self.device,
                dtype=getattr(torch, self.dtype.value),
                autocast=None if self.autocast is None else getattr(torch, self.autocast.value),
                ignore_positions=self.ignore_positions,
                lazy_encoder=self.lazy_encoder,
                hooks=None if self.hooks is None else _two_hooks(self.hooks),
            )
        reporter().count(lambda: loaded.spent)
        return loaded

    def load_with(
        self, behaviors: Sequence[str], n_prompts: int | None, seed: int
    ) -> tuple[ReplacementModel, list[Behavior]]:
        """The same with behaviours that it can read; what is cheap to check is checked first."""
        from pie_fast.behaviors import check_known, load_behavior

        for name in behaviors:
            check_known(name)
        loaded = self.load()
        host = loaded.host
        found = [
            load_behavior(name, tokenizer=host.tokenizer, n_prompts=n_prompts, seed=seed)
            for name in behaviors
        ]
        for behavior in found:
            behavior.check_fits(host.vocab_size, host.n_ctx)
        return loaded, found
