"""One circuit for several behaviours under one budget, judged on held-out prompts.

Grown by conditional gradient on the behaviours' joint objective (`pie_fast.several`). Beside it
stand what each behaviour has from a circuit of its own with the same budget, so that the price of
sharing is seen, and what all have from the first features of those circuits taken in turns, which
is what sharing has to beat.

RUN/result.json    features with their effect on each behaviour, behaviours, front, settings
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.behaviors import Behavior, Prompt
from pie_fast.capture import default_switches
from pie_fast.conditional import Grown, grow
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.evaluate import Measured, measure, summarize
from pie_fast.ground import Ground
from pie_fast.identity import versions
from pie_fast.journal import Journal
from pie_fast.model import Replacer, Switches
from pie_fast.outputs import new_folder, write_json
from pie_fast.progress import Reporter
from pie_fast.selectors import Ranked
from pie_fast.several import (
    OBJECTIVES,
    SharedGround,
    as_shares,
    interleaved,
    non_dominated,
    weight_grid,
)

#: a feature serves the behaviours that have at least this share of what it does
SERVES = 0.1

#: what is told of a circuit on a behaviour
FIGURES = ("behavioral_fidelity", "mean_kl", "faithfulness", "top1_agreement")


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
    command: Sequence[str] | None = None,
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
        command: The command line that asks for it, to be recorded.
        reporter: Shows and times the stages.

    Returns:
        What `result.json` holds: `features` (each with the exact rise of each behaviour's mean KL
        on the selection prompts when it goes, `effects`, the behaviours' shares of it, those that
        it serves, and those whose own circuit holds it), `behaviors` (figures on held-out prompts
        of the shared circuit, the own one and the one in turns), `front`, `settings`, `cost`.

    Raises:
        BudgetError: The budget is below 1 or exceeds the active features of all behaviours.
        BehaviorError: Fewer than two behaviours, or two of one name.
        PieFastError: Unknown objective, or weights that are none.
        OutputExistsError: `out` exists and `force` was not given.
    """
    _check(behaviors, budget, objective, weights)
    reporter = reporter or Reporter()
    before = model.spent
    with _folder(out, force) as folder:
        stages = _Stages(model, behaviors, budget, objective, weights, step, baseline, batch_size)
        result = stages.run(reporter, front_steps, seed)
        n_prompts = len(stages.ground.prompts)
        result |= {
            "settings": {
                "budget": budget,
                "objective": objective,
                "weights": [1.0] * len(behaviors) if weights is None else list(weights),
                "step": step,
                "batch_size": batch_size,
                "seed": seed,
                "metric": "kl",
                "model": model.host.name,
                "clt": model.clt.name,
            },
            "cost": (model.spent - before).passes(n_prompts),
            "timings": {name: round(spent, 4) for name, spent in reporter.timings.items()},
            "versions": versions(),
            "command": None if command is None else list(command),
        }
        if folder is not None:
            write_json(folder / "result.json", result)
            Journal(folder).write("finished", name="shared", spent={"timings": result["timings"]})
    return result


class _Stages:
    """The stages of one run."""

    def __init__(
        self,
        model: Replacer,
        behaviors: Sequence[Behavior],
        budget: int,
        objective: str,
        weights: Sequence[float] | None,
        step: int,
        baseline: str | None,
        batch_size: int,
    ) -> None:
        self.model, self.budget, self.step, self.objective = model, budget, step, objective
        self.behaviors = {behavior.name: behavior for behavior in behaviors}
        self.weights, self.batch_size = weights, batch_size
        self.switches = {
            name: Switches(baseline) if baseline else default_switches(behavior)
            for name, behavior in self.behaviors.items()
        }

    @cached_property
    def ground(self) -> SharedGround:
        """The selection prompts of all behaviours, and all features active on any."""
        parts = [
            Ground(
                self.model,
                behavior.selection,
                behavior.metric,
                self.switches[name],
                batch_size=self.batch_size,
            )
            for name, behavior in self.behaviors.items()
        ]
        found = SharedGround(parts, self.weights, worst=self.objective == "worst")
        if self.budget > len(found):
            raise BudgetError(f"budget {self.budget} exceeds the {len(found)} active features")
        return found

    def run(self, reporter: Reporter, front_steps: int | None, seed: int) -> dict[str, Any]:
        """Everything that the prompts say."""
        with reporter.stage("prepare"):
            ground = self.ground
        with reporter.stage("grow") as advance:
            grown = grow(ground, self.budget, batch=self.step, progress=advance)
        with reporter.stage("own"):
            parts = zip(self.behaviors, ground.parts, strict=True)
            own = {name: self._own(part) for name, part in parts}
        with reporter.stage("front") as advance:
            front = self._front(own, front_steps, advance) if self.objective == "pareto" else []
        in_turns = np.asarray(interleaved(own, self.budget), dtype=np.int64)
        circuits = [grown.ids, in_turns, *(ids for _, ids in front)]
        with reporter.stage("evaluate"):
            measured = {
                name: self._measure(name, [*circuits, own[name]]) for name in self.behaviors
            }
        with reporter.stage("effects"):
            effects = ground.removal_effects(grown.ids)
        return {
            "features": self._listed(grown, effects, own),
            "behaviors": [
                self._told(name, grown, own[name], measured[name], seed) for name in self.behaviors
            ],
            "front": self._told_front(front, measured),
            "n_active": len(ground),
            "n_dictionary": self.model.clt.n_layers * self.model.clt.n_features,
        }

    def _own(self, part: Ground) -> NDArray[np.int64]:
        """The behaviour's own circuit, of its own active features."""
        return grow(part.afresh(), min(self.budget, len(part)), batch=self.step).ids

    def _front(
        self, own: Mapping[str, NDArray[np.int64]], n_steps: int | None, advance: Any
    ) -> list[tuple[NDArray[np.float64] | None, NDArray[np.int64]]]:
        """Circuits with the weights that they were grown by, None for `worst`."""
        grid = weight_grid(len(own), n_steps)
        found: list[tuple[NDArray[np.float64] | None, NDArray[np.int64]]] = []
        for done, weights in enumerate(grid):
            if weights.max() == 1.0:
                ids = list(own.values())[int(weights.argmax())]
            else:
                ids = grow(self.ground.towards(weights), self.budget, batch=self.step).ids
            found.append((weights, ids))
            advance(done + 1, len(grid) + 1)
        worst = self.ground.towards(worst=True)
        return [*found, (None, grow(worst, self.budget, batch=self.step).ids)]

    def _judged_on(self, name: str) -> tuple[Prompt, ...]:
        """Held-out prompts; those of selection where there are none."""
        return self.behaviors[name].held_out or self.behaviors[name].selection

    def _measure(self, name: str, circuits: Sequence[NDArray[np.int64]]) -> list[Measured]:
        behavior = self.behaviors[name]
        return measure(
            self.model,
            [ids.tolist() for ids in circuits],
            self._judged_on(name),
            metric=behavior.metric,
            switches=self.switches[name],
            mean_of=behavior.selection,
            batch_size=self.batch_size,
            completeness=False,
        )

    def _listed(
        self,
        grown: Grown,
        effects: NDArray[np.float64],
        own: Mapping[str, NDArray[np.int64]],
    ) -> list[dict[str, Any]]:
        ranked = Ranked(grown.ids, grown.scores, "shared", self.model.clt.n_features)
        shares = effect_shares(effects)
        rows = zip(ranked.listed(), grown.ids.tolist(), effects, shares, strict=True)
        return [
            {
                **row,
                "effects": dict(zip(self.behaviors, effect.tolist(), strict=True)),
                "shares": dict(zip(self.behaviors, share.tolist(), strict=True)),
                "serves": [n for n, s in zip(self.behaviors, share, strict=True) if s >= SERVES],
                "own": [name for name, ids in own.items() if feature in ids],
            }
            for row, feature, effect, share in rows
        ]

    def _told(
        self,
        name: str,
        grown: Grown,
        own: NDArray[np.int64],
        measured: Sequence[Measured],
        seed: int,
    ) -> dict[str, Any]:
        shared, in_turns, alone = (
            _figures(one, seed) for one in (measured[0], measured[1], measured[-1])
        )
        both = len(np.intersect1d(grown.ids, own))
        behavior = self.behaviors[name]
        return {
            "name": name,
            **shared,
            "own": alone,
            "in_turns": in_turns,
            "price": shared["mean_kl"] - alone["mean_kl"],
            "in_own": both,
            "jaccard": both / len(np.union1d(grown.ids, own)),
            "n_prompts": len(self._judged_on(name)),
            "split": "held_out" if behavior.held_out else "selection",
            "n_selection": len(behavior.selection),
            "behavior_hash": behavior.hash,
            **self.switches[name].to_dict(),
            "ignore_positions": self.model.ignore_positions,
        }

    def _told_front(
        self,
        front: Sequence[tuple[NDArray[np.float64] | None, NDArray[np.int64]]],
        measured: Mapping[str, Sequence[Measured]],
    ) -> list[dict[str, Any]]:
        """Every circuit tried, with whether no other is at least as good everywhere."""
        if not front:
            return []
        n = len(front)
        kl = np.array([[m.kl.mean() for m in ms[2 : 2 + n]] for ms in measured.values()]).T
        rows = zip(front, kl, non_dominated(kl), strict=True)
        n_features = self.model.clt.n_features
        return [
            {
                "objective": "worst" if weights is None else "weighted",
                "weights": None
                if weights is None
                else dict(zip(self.behaviors, weights.tolist(), strict=True)),
                "mean_kl": dict(zip(self.behaviors, row.tolist(), strict=True)),
                "on_front": bool(on_front),
                "features": [[g // n_features, g % n_features] for g in ids.tolist()],
            }
            for (weights, ids), row, on_front in rows
        ]


def effect_shares(effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each behaviour's share of the KL that rises when a feature goes: `[k, n]`, rows sum to 1.

    Behaviours that would do better without the feature have none; rows of such alone are 0.
    """
    rises = np.maximum(effects, 0.0)
    total = rises.sum(1, keepdims=True)
    shares: NDArray[np.float64] = rises / np.where(total > 0, total, 1.0)
    return shares


def _figures(measured: Measured, seed: int) -> dict[str, Any]:
    summary = summarize(measured, seed=seed)
    intervals = {key: summary["intervals"][key] for key in FIGURES}
    return {**{key: summary[key] for key in FIGURES}, "intervals": intervals}


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
def _folder(out: Path | None, force: bool) -> Iterator[Path | None]:
    if out is None:
        yield None
        return
    with new_folder(out, force=force) as folder:
        yield folder
