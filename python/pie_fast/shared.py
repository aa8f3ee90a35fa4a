"""One circuit for several behaviours under one budget, judged on held-out prompts.

Grown by conditional gradient on the behaviours' joint objective (`pie_fast.several`). Beside it
stand what each behaviour has from a circuit of its own with the same budget, so that the price of
sharing is seen, and what all have from the first features of those circuits taken in turns, which
is what sharing has to beat.

RUN/result.json    features with their effect on each behaviour, behaviours, front, settings
RUN/journal.jsonl  when, by which process and in what time

A run that was stopped goes on after its last whole stage (each growth is one) and ends in the same
bytes, but for the journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pie_fast.behaviors import Behavior
from pie_fast.checkpoints import Checkpoints
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.identity import versions
from pie_fast.journal import Journal, Note, begin
from pie_fast.model import Replacer
from pie_fast.outputs import new_folder, write_json
from pie_fast.progress import Reporter
from pie_fast.several import OBJECTIVES, as_shares
from pie_fast.shared_stages import SharedStages


def discover_shared(
    model: Replacer,
    behaviors: Sequence[Behavior],
    budget: int,
    *,
    objective: str = "weighted",
    weights: Sequence[float] | None = None,
    front_steps: int | None = None,
    step: int = 5,
    baseline: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    out: Path | None = None,
    force: bool = False,
    resume: bool = False,
    command: Sequence[str] | None = None,
    asked: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Find one circuit of `budget` features for all of `behaviors`.

    Args:
        model: The replacement model.
        behaviors: Two or more, of different names.
        budget: K.
        objective: `weighted`: the weighted sum of the mean KLs; `worst`: the largest of them, by
            a soft maximum; `pareto`: as `weighted`, and a front of circuits over a grid of
            weights (their ends the behaviours' own circuits) with that of `worst`.
        weights: One a behaviour for `weighted` and `pareto`; 1 each when None.
        front_steps: Steps of the front's grid from weight 0 to 1; see `weight_grid`.
        step: Features that enter after each pass.
        baseline: Of every behaviour; its counterfactual where it has one, else mean, when None.
        batch_size: Prompts a batch.
        seed: Of the bootstrap.
        out: A folder for `result.json`, which appears when the run is complete; None: no file.
        force: Replace a run that is there.
        resume: Go on with a run that was stopped.
        command: The command line that asks for it, to be recorded.
        asked: What `pie-fast resume` needs to ask for it again.
        reporter: Shows and times the stages.

    Returns:
        What `result.json` holds: `features` (each with the exact rise of each behaviour's mean KL
        on the selection prompts when it goes, `effects`, the behaviours' shares of it, those that
        it serves, and those whose own circuit holds it), `behaviors` (figures on held-out prompts
        of the shared circuit, the own one and the one in turns), `front`, `settings`, `cost`; and
        the `timings` of this process.

    Raises:
        BudgetError: The budget is below 1 or exceeds the active features of all behaviours.
        BehaviorError: Fewer than two behaviours, or two of one name.
        PieFastError: Unknown objective, or weights that are none.
        OutputExistsError: `out` exists and `force` was not given.
        JournalError: What is resumed was begun otherwise; with what differs.
        RunInUseError: Another process works on the run.
    """
    _check(behaviors, budget, objective, weights)
    reporter = reporter or Reporter()
    settings = {
        "budget": budget,
        "objective": objective,
        "weights": [1.0] * len(behaviors) if weights is None else list(weights),
        "step": step,
        "batch_size": batch_size,
        "seed": seed,
        "metric": "kl",
        "model": model.host.name,
        "clt": model.clt.name,
    }
    stages = SharedStages(model, behaviors, budget, objective, weights, step, baseline, batch_size)
    with _folder(out, force, resume, reporter.note) as folder:
        if folder is not None:
            begun = begin(
                Journal(folder),
                "shared",
                {**settings, "front_steps": front_steps, **stages.identity()},
                command=command,
                asked=asked,
                threads=torch.get_num_threads(),
                resume=True,
                note=reporter.note,
            )
            stages.saved = Checkpoints(Journal(folder), reporter.note, of=begun["identity"])
            command = begun["command"]
        result = stages.run(reporter, front_steps, seed) | {
            "settings": settings,
            "cost": stages.cost.passes(len(stages.ground.prompts)),
            "versions": versions(),
            "command": None if command is None else list(command),
        }
        spent = {"timings": {name: round(s, 4) for name, s in reporter.timings.items()}}
        if folder is not None and stages.saved is not None:
            write_json(folder / "result.json", result)
            stages.saved.clear()
            Journal(folder).write("finished", name="shared", spent=spent)
    return result | spent


def _check(
    behaviors: Sequence[Behavior], budget: int, objective: str, weights: Sequence[float] | None
) -> None:
    names = [behavior.name for behavior in behaviors]
    if len(names) < 2:
        raise BehaviorError(f"there are {len(names)} behaviours; at least 2 can share a circuit")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BehaviorError(f"behaviour {min(twice)!r} is given twice; names must differ")
    if objective not in OBJECTIVES:
        raise PieFastError(f"objective {objective!r} is not one of {', '.join(OBJECTIVES)}")
    as_shares(weights, len(names))
    if budget < 1:
        raise BudgetError(f"budget {budget} is not valid; budgets start at 1")


@contextmanager
def _folder(out: Path | None, force: bool, resume: bool, note: Note) -> Iterator[Path | None]:
    if out is None:
        yield None
        return
    with new_folder(out, force=force, resume=resume, note=note) as folder:
        yield folder
