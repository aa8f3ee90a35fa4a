"""The selection stages of `pie_fast.discover`: capture, and the first K units of any method."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.behaviors import Behavior
from pie_fast.capture import capture
from pie_fast.checkpoints import Checkpoints
from pie_fast.conditional import Grown, grow
from pie_fast.cost import Cost
from pie_fast.crew import Crew
from pie_fast.cuts import Cuts
from pie_fast.dump import FeatureDump
from pie_fast.errors import BudgetError
from pie_fast.ground import Ground
from pie_fast.growths import Growths
from pie_fast.methods import selector_named
from pie_fast.methods.selections import Selections
from pie_fast.model import Replacer
from pie_fast.nodes import NodeGround
from pie_fast.plan import Plan
from pie_fast.progress import Advance, Reporter
from pie_fast.selectors import Ranked, as_asked, select_features
from pie_fast.slots import Slots
from pie_fast.spread_ground import SpreadGround, SpreadNodeGround
from pie_fast.stability import (
    Select,
    frequency_by_score,
    frequency_by_synergy,
    selection_frequency,
)
from pie_fast.synergy import model_calls
from pie_fast.synergy_matrix import SynergyMatrix
from pie_fast.synergy_pool import SYNERGY_FILE, measure_synergy


class Selecting:
    """Captures a behaviour and selects on it: each stage is timed, what several need made once.

    Args:
        model: The replacement model.
        behavior: Its selection prompts are looked at, the held-out ones are not.
        plan: Every choice.
        folder: The dump goes to `dump` in it.
        reporter: Shows and times the stages.
        saved: What was found before; growths and synergies go on with it.
        crew: Workers that hold the model; None: this process.

    Raises:
        BudgetError: The budget exceeds the active features, or nodes.
    """

    def __init__(
        self,
        model: Replacer,
        behavior: Behavior,
        plan: Plan,
        folder: Path,
        reporter: Reporter,
        saved: Checkpoints,
        crew: Crew | None = None,
    ) -> None:
        self.crew = crew
        self.model, self.behavior, self.plan = model, behavior, plan
        self.reporter, self.saved = reporter, saved
        self.metric = plan.metric or behavior.metric
        self.switches = plan.switches(behavior)
        self.dump = self._capture(folder / "dump")
        # What did not fit into memory there would not fit later either.
        cuts = Cuts(plan.batch_size, self.dump.manifest.get("batches"))
        self.plan = replace(plan, batch_size=cuts.smallest)
        self.active = self.dump.active_features()
        self.n_active = len(self.active if plan.unit == "feature" else self.ground)
        if (plan.budget or 0) > self.n_active:
            raise BudgetError(
                f"budget {plan.budget} exceeds the {self.n_active} active {plan.unit}s"
            )
        self._growths = Growths(saved)
        self._synergy_cost = Cost()

    def first(self, k: int) -> Ranked:
        """The first k units of the plan's method."""
        if self.plan.by_registry:
            return self._by_registry(k)
        if self.plan.method == "conditional-gradient":
            return self.grown(k)
        return self._from_dump(k)

    def grown(self, k: int) -> Ranked:
        """The first k units that the conditional gradient adds; growth goes on, never anew."""
        so_far, step = self._growths.whole, self.plan.step
        if k > len(so_far.ids):
            # Whole steps, so that no prefix depends on which budgets were asked for.
            longest = min(-(-k // step) * step, self.n_active)
            ground, left = self.ground, longest - len(so_far.ids)  # a stage of its own
            with self.reporter.stage("grow") as advance:
                if len(so_far.ids) and (self.plan.anchor or self.plan.pairs):
                    ground.effects()  # the first growth paid for them, in whichever process
                self._growths.go_on(
                    left,
                    lambda resumed, save: self._grow(
                        ground, left, start=so_far.ids, resumed=resumed, save=save, progress=advance
                    ),
                )
        found = self._growths.whole
        made = {"step": step, "anchor": self.plan.anchor, "grown_on": "kl"}
        cost = found.cost.passes(len(self.behavior.selection))
        method, n_features = "conditional-gradient", self.dump.n_features
        ranked = Ranked(found.ids, found.scores, method, n_features, made, cost, self.slots)
        return ranked.first(k)

    def stability(self, chosen: Ranked) -> NDArray[np.float64] | None:
        """None where it was not asked for, the selector does not look at effects, or to select
        again would cost as much each time."""
        plan, ids = self.plan, chosen.ids
        if plan.stability == 0 or chosen.selector in ("random", "magnitude"):
            return None
        draws = {"n_resamples": plan.stability, "seed": plan.options.seed}
        rank_by = plan.options.rank_by
        if plan.by_registry and not self.selections.selector.nested:
            return None
        with self.reporter.stage("stability") as advance:
            if plan.by_registry:
                return self._resampled(
                    lambda weights: self.selections.again(len(ids), weights).ids, ids, advance
                )
            if chosen.selector == "fap":
                return frequency_by_score(self.dump, ids, rank_by, **draws)
            if chosen.selector == "fap-synergy":
                pool = np.asarray(self.synergy.pool, dtype=np.int64)
                values = as_asked(self.synergy, plan.options.synergy)
                bonus = plan.options.bonus
                return frequency_by_synergy(
                    self.dump, ids, pool, values, rank_by, bonus=bonus, **draws
                )
            return self._resampled(
                lambda weights: self._grow(self.ground.reweighted(weights), len(ids)).ids,
                ids,
                advance,
            )

    def _resampled(
        self, select: Select, ids: NDArray[np.int64], progress: Advance
    ) -> NDArray[np.float64]:
        return selection_frequency(
            select,
            ids,
            len(self.behavior.selection),
            n_resamples=self.plan.stability,
            seed=self.plan.options.seed,
            progress=progress,
        )

    @cached_property
    def selections(self) -> Selections:
        """The selections of the registry's selector."""
        selector = selector_named(self.plan.method)
        ground = self.ground.afresh(seed=self.plan.options.seed, metric=self.metric)
        return Selections(ground, selector, self.plan.selector_options(selector.options))

    @cached_property
    def ground(self) -> Ground:
        """The selection prompts, prepared once for every growth on them."""
        asked = self.behavior.selection, "kl", self.switches
        options: dict[str, Any] = {"candidates": self.active, "batch_size": self.plan.batch_size}
        of_nodes = self.plan.unit == "node"
        with self.reporter.stage("prepare"):
            if self.crew is None or self.crew.here:
                return (NodeGround if of_nodes else Ground)(self.model, *asked, **options)
            return (SpreadNodeGround if of_nodes else SpreadGround)(self.crew, *asked, **options)

    @property
    def slots(self) -> Slots | None:
        """Of the nodes, where these are the unit."""
        return self.ground.slots if self.plan.unit == "node" else None

    @cached_property
    def synergy(self) -> SynergyMatrix:
        """Pair synergies of the pool."""
        spent = self.saved.once("synergy", lambda: asdict(self._measure_synergy()))
        self._synergy_cost = Cost(**spent)
        return SynergyMatrix.load(Path(self.dump.path) / SYNERGY_FILE)

    def _measure_synergy(self) -> Cost:
        """What it cost; the dump holds what it gave."""
        plan, before = self.plan, self.model.spent
        with self.reporter.stage("synergy") as advance:
            measure_synergy(
                self.model,
                self.behavior.selection[: plan.synergy_prompts],
                self.dump,
                plan.pool_size(self.n_active),
                rank_by=plan.options.rank_by,
                metric=self.metric,
                switches=self.switches,
                estimator=plan.estimator,
                direction=plan.direction,
                batch_size=plan.batch_size,
                mean_of=self.behavior.selection,
                progress=advance,
                crew=self.crew,
            )
        return self.model.spent - before

    def with_known(self, found: dict[str, Any]) -> dict[str, Any]:
        """What a stage found, with what the registry's selector has chosen by then."""
        known = self.selections.to_dict() if self.plan.by_registry else None
        return {"found": found, "known": known}

    def know(self, saved: dict[str, Any]) -> dict[str, Any]:
        """What the stage of `with_known` found; what had been chosen then is known again."""
        if saved["known"] is not None:
            self.selections.know(saved["known"])
        found: dict[str, Any] = saved["found"]
        return found

    def _by_registry(self, k: int) -> Ranked:
        most = self.selections.planned(k)
        if most is not None:
            self._announce("at most", **most.passes(len(self.behavior.selection)))
        with self.reporter.stage("select") as advance:
            self.selections.ground.progress = advance
            return self.selections.first(k)

    def _from_dump(self, k: int) -> Ranked:
        reranked = self.plan.options.regime(k) == "fap-synergy"
        if reranked and "synergy" not in vars(self):
            size = self.plan.pool_size(self.n_active)
            share = self._n_synergy_prompts / len(self.behavior.selection)
            forward, backward = model_calls(self.plan.estimator, size)
            self._announce("about", share * forward, share * backward)
        synergy = self.synergy if reranked else None
        with self.reporter.stage("select"):
            found = select_features(self.dump, k, self.plan.options, synergy)
        # The capture's pass is the one that makes FAP scores.
        spent = Cost() if found.selector in ("random", "magnitude") else self._one_pass
        spent += self._synergy_cost if reranked else Cost()
        return replace(found, cost=spent.passes(len(self.behavior.selection)))

    def _announce(self, how: str, forward: float, backward: float) -> None:
        """What is going to be spent."""
        n_prompts = len(self.behavior.selection)
        self.reporter.note(
            f"{self.plan.method} takes {how} {forward:.0f} forward and {backward:.0f} backward "
            f"passes over {n_prompts} prompts"
        )

    @property
    def _one_pass(self) -> Cost:
        return Cost(1, 1).times(len(self.behavior.selection))

    @property
    def _n_synergy_prompts(self) -> int:
        return min(self.plan.synergy_prompts, len(self.behavior.selection))

    def _grow(self, ground: Ground, k: int, **options: Any) -> Grown:
        """A growth as the plan has it."""
        plan = self.plan
        return grow(ground, k, batch=plan.step, pairs=plan.pairs, anchor=plan.anchor, **options)

    def _capture(self, path: Path) -> FeatureDump:
        with self.reporter.stage("capture") as advance:
            return capture(
                self.model,
                self.behavior,
                path,
                metric=self.metric,
                switches=self.switches,
                gradient=self.plan.gradient,
                batch_size=self.plan.batch_size,
                unit=self.plan.unit,
                resume=path.exists(),
                progress=advance,
                note=self.reporter.note,
                crew=self.crew,
            )
