"""The stages of one circuit for several behaviours, each kept when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.behaviors import Behavior, Prompt
from pie_fast.capture import default_switches
from pie_fast.checkpoints import Checkpoints
from pie_fast.conditional import Grown, grow
from pie_fast.cost import Cost
from pie_fast.errors import BudgetError
from pie_fast.evaluate import Measured, measure, summarize
from pie_fast.ground import Ground
from pie_fast.identity import versions
from pie_fast.model import Replacer, Switches
from pie_fast.progress import Reporter
from pie_fast.selectors import Ranked
from pie_fast.several import SharedGround, interleaved, non_dominated, weight_grid

#: a feature serves the behaviours that have at least this share of what it does
SERVES = 0.1

#: what is told of a circuit on a behaviour
FIGURES = ("behavioral_fidelity", "mean_kl", "faithfulness", "top1_agreement")


class SharedStages:
    """The stages of one run.

    Attributes:
        saved: Where what they find is kept; None: nowhere.
        cost: Of all of them, in whichever process.
    """

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
        self.saved: Checkpoints | None = None
        self.cost = Cost()
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

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of the result, beside the settings."""
        return {
            **self.model.setting,
            "behaviors": {name: behavior.hash for name, behavior in self.behaviors.items()},
            "baselines": {name: one.to_dict() for name, one in self.switches.items()},
            "versions": versions(),
        }

    def _once(self, stage: str, make: Callable[[], Any]) -> Any:
        """What a stage finds, from disk where it was finished before; its cost counts once."""

        def made() -> dict[str, Any]:
            before = self.model.spent
            return {"found": make(), "cost": asdict(self.model.spent - before)}

        kept = made() if self.saved is None else self.saved.once(stage, made)
        self.cost += Cost(**kept["cost"])
        return kept["found"]

    def _grown(self, stage: str, make: Callable[[], Grown]) -> Grown:
        """A growth, as a stage."""

        def plain() -> dict[str, list[float]]:
            grown = make()
            return {"ids": grown.ids.tolist(), "scores": grown.scores.tolist()}

        found = self._once(stage, plain)
        return Grown(np.array(found["ids"], np.int64), np.array(found["scores"], np.float64))

    def run(self, reporter: Reporter, front_steps: int | None, seed: int) -> dict[str, Any]:
        """Everything that the prompts say."""
        before = self.model.spent
        with reporter.stage("prepare"):
            ground = self.ground
        self.cost += self.model.spent - before
        with reporter.stage("grow") as advance:
            make = partial(grow, ground, self.budget, batch=self.step, progress=advance)
            grown = self._grown("grow", make)
        with reporter.stage("own"):
            parts = enumerate(zip(self.behaviors, ground.parts, strict=True))
            own = {
                name: self._grown(f"own-{number}", partial(self._own, part)).ids
                for number, (name, part) in parts
            }
        with reporter.stage("front") as advance:
            front = self._front(own, front_steps, advance) if self.objective == "pareto" else []
        with reporter.stage("evaluate"):
            judged = self._once("evaluate", lambda: self._judged(grown, own, front, seed))
        with reporter.stage("effects"):
            features = self._once(
                "effects", lambda: self._listed(grown, ground.removal_effects(grown.ids), own)
            )
        return {
            "features": features,
            **judged,
            "n_active": len(ground),
            "n_dictionary": self.model.clt.n_layers * self.model.clt.n_features,
        }

    def _own(self, part: Ground) -> Grown:
        """The behaviour's own circuit, of its own active features."""
        return grow(part.afresh(), min(self.budget, len(part)), batch=self.step)

    def _towards(self, number: int, *weights: Any, **how: Any) -> NDArray[np.int64]:
        """The circuit of one point of the front."""
        ground = self.ground.towards(*weights, **how)
        make = partial(grow, ground, self.budget, batch=self.step)
        return self._grown(f"front-{number}", make).ids

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
                ids = self._towards(done, weights)
            found.append((weights, ids))
            advance(done + 1, len(grid) + 1)
        return [*found, (None, self._towards(len(grid), worst=True))]

    def _judged(
        self,
        grown: Grown,
        own: Mapping[str, NDArray[np.int64]],
        front: Sequence[tuple[NDArray[np.float64] | None, NDArray[np.int64]]],
        seed: int,
    ) -> dict[str, Any]:
        """Every circuit on prompts that found none of them."""
        in_turns = np.asarray(interleaved(own, self.budget), dtype=np.int64)
        circuits = [grown.ids, in_turns, *(ids for _, ids in front)]
        measured = {name: self._measure(name, [*circuits, own[name]]) for name in self.behaviors}
        told = [self._told(name, grown, own[name], measured[name], seed) for name in own]
        return {"behaviors": told, "front": self._told_front(front, measured)}

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
