"""Model calls of every stage of `pie_fast.discover`, from its plan alone.

Counted as `Cost` counts: prompts through forward and backward passes. Where a stage's calls depend
on what it finds, the number is the most that there can be.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pie_fast.behaviors import Behavior
from pie_fast.conditional import step_size
from pie_fast.cost import Cost
from pie_fast.discover import CURVE, GROWN_CURVE, LARGEST_AUTO
from pie_fast.knee import budgets
from pie_fast.methods import selector_named
from pie_fast.model.sites import READ_SITES, WRITE_SITES
from pie_fast.plan import Plan
from pie_fast.reconstruction import LOOKED_AT
from pie_fast.slots import Slots
from pie_fast.synergy import model_calls

#: passes of selectors that tell no cost of their own: option values -> Cost of one prompt
_PASSES: dict[str, Any] = {
    "random": lambda o, k: Cost(),
    "magnitude": lambda o, k: Cost(),
    "fap": lambda o, k: Cost(1, 1),
    "relp": lambda o, k: Cost(1, 1),
    "gim": lambda o, k: Cost(1, 1),
    "fap-ig": lambda o, k: Cost(o["steps"], o["steps"]),
    # The effects that choose the pool, then a backward pass for each outcome.
    "fisher-gram": lambda o, k: Cost(2, 1 + o["tokens"] + 1),
    "linkl": lambda o, k: Cost(2, 1 + o["tokens"] + 1),
}


@dataclass(frozen=True)
class Stage:
    """The model calls of one stage.

    Attributes:
        name: As in `timings` and `model_calls` of `result.json`.
        cost: Prompts through the model.
        exact: Whether it takes just that, not at most that.
        known: Whether anything is known; a selector may not tell.
    """

    name: str
    cost: Cost
    exact: bool = True
    known: bool = True


def capture_calls(plan: Plan, behavior: Behavior) -> Stage:
    """Of a capture: the model and its baseline, the empty circuit, and forward and backward."""
    n = len(behavior.selection)
    means = plan.switches(behavior).baseline == "mean"
    return Stage("capture", Cost(_prepare(plan, behavior) + 2 + means, 1).times(n))


def discover_calls(plan: Plan, behavior: Behavior, most_active: int) -> list[Stage]:
    """Of a whole run, in the order of its stages.

    Args:
        plan: Every choice.
        behavior: Its prompts.
        most_active: Active features there may be; what depends on it is told as the most.
    """
    return _Counting(plan, behavior, most_active).stages()


class _Counting:
    """The stages of one plan, as `pie_fast.discover` has them."""

    def __init__(self, plan: Plan, behavior: Behavior, most_active: int) -> None:
        self.plan, self.behavior = plan, behavior
        self.of_nodes = plan.unit == "node"
        places = len(Slots.of(behavior.selection)) if self.of_nodes else 1
        self.most_active = most_active * places
        self.n = len(behavior.selection)
        self.prepare = _prepare(plan, behavior)
        held_out = len(behavior.held_out) or self.n
        self.n_choosing = len(behavior.held_out) // 2 if plan.budget is None else 0
        self.n_judged = held_out - self.n_choosing
        self.largest = min(LARGEST_AUTO, most_active)
        if plan.method == "fap-synergy":
            self.largest = min(self.largest, plan.pool_size(most_active))
        #: an automatic budget is at most this
        self.k = plan.budget or self.largest

    def stages(self) -> list[Stage]:
        found = [self.fit, capture_calls(self.plan, self.behavior)]
        found += [*self.choosing(), *self.selecting()]
        found += [*self.judging(), *self.curve()]
        return [stage for stage in found if stage.cost != Cost() or not stage.known]

    @property
    def fixed(self) -> bool:
        """Whether the budget is known before."""
        return self.plan.budget is not None

    def choosing(self) -> list[Stage]:
        """Looking for a budget: a run for each that is tried."""
        if self.fixed:
            return []
        tried = len(budgets(self.largest)) if self.plan.knee else 2 * self.largest.bit_length()
        return [Stage("budget", Cost((self.prepare + tried) * self.n_choosing), exact=False)]

    def selecting(self) -> list[Stage]:
        """What the method takes, and the resamples of its prompts."""
        plan = self.plan
        if plan.by_registry:
            stages = [self.prepared, *self.by_registry()]
        elif plan.method == "conditional-gradient":
            stages = [self.prepared, *([] if plan.curve else [self.grown(self.k)])]
            if plan.stability:
                # Effects at the model itself do not depend on how often a prompt counts.
                again = self.growth(self.k, False).times(plan.stability * self.n)
                stages.append(Stage("stability", again, exact=self.fixed and not plan.pairs))
        elif plan.options.regime(self.k) == "fap-synergy" and not plan.curve:
            stages = [self.synergy]
        else:
            stages = []
        return stages

    def by_registry(self) -> list[Stage]:
        plan, selector = self.plan, selector_named(self.plan.method)
        options = {**selector.options, **plan.selector_options(selector.options)}
        spent = self.selected(selector, options)
        if spent is None:
            return [Stage("select", Cost(), exact=False, known=False)]
        exact = self.fixed and selector.cost is None
        eliminates = selector.name in ("fisher-gram", "linkl")
        # A pair that is found takes the place of a step.
        paired = bool(options.get("pairs"))
        stages = [Stage("select", spent, exact and not eliminates and not paired)]
        if plan.stability and selector.nested and selector.name not in ("random", "magnitude"):
            stages.append(Stage("stability", spent.times(plan.stability), exact=False))
        return stages

    def selected(self, selector: Any, options: dict[str, Any]) -> Cost | None:
        """Of one selection; None where it is not told."""
        if selector.cost is not None:
            ground = _Size(self.most_active, prompts=range(self.n))
            told: Cost = selector.cost(ground, self.k, **options)
            return told
        if selector.name == "conditional-gradient":
            steps = _steps(self.k, options["batch"], options["share"])
            first = bool(options["anchor"] or options["pairs"])
            return _growth(steps, options["pairs"], first).times(self.n)
        known = _PASSES.get(selector.name)
        return None if known is None else known(options, self.k).times(self.n)

    def judging(self) -> list[Stage]:
        """Ablation of each kept feature, the evaluation, and the missed mass."""
        n_ablated = min(self.plan.ablation_prompts, self.n)
        ablation = Cost(self.prepare + self.k + 2, 1).times(0 if self.of_nodes else n_ablated)
        # Errors kept and dropped: the empty circuit, the circuit, the model without it.
        evaluation = Cost(2 * (self.prepare + 3)).times(self.n_judged)
        stages = [Stage("ablate", ablation, self.fixed), Stage("evaluate", evaluation)]
        if self.plan.missed:
            halves = Cost(self.prepare + 2 * self.plan.missed + 3).times(self.n_judged)
            stages.append(Stage("missed mass", halves, exact=False))
        return stages

    def curve(self) -> list[Stage]:
        """Circuits of every selector that needs a dump only, of the growth, and of the method."""
        plan = self.plan
        if not plan.curve:
            return []
        grown = max(GROWN_CURVE, self.k)
        if plan.method == "conditional-gradient" and not self.fixed:
            grown = max(grown, self.largest)
        points = sorted({*CURVE, self.k})
        n = (0 if self.of_nodes else 4) * len(points) + sum(k <= grown for k in points)
        runs = self.prepare + 1 + n
        if plan.by_registry:
            runs += self.prepare + 1 + len(points)
        stages = (
            [] if plan.by_registry or plan.method == "conditional-gradient" else [self.prepared]
        )
        stages += [*([] if self.of_nodes else [self.synergy]), self.grown(grown)]
        return [*stages, Stage("curve", Cost(runs).times(self.n_judged), exact=False)]

    @property
    def fit(self) -> Stage:
        """Whether the CLT fits its hooks: once, and at every other pair where it does not."""
        pairs = len(READ_SITES) * len(WRITE_SITES)
        return Stage("fit", Cost(pairs * min(LOOKED_AT, self.n)), exact=False)

    @property
    def prepared(self) -> Stage:
        return Stage("prepare", Cost(self.prepare).times(self.n))

    @property
    def synergy(self) -> Stage:
        n = min(self.plan.synergy_prompts, self.n)
        forward, backward = model_calls(self.plan.estimator, self.plan.pool_size(self.most_active))
        return Stage("synergy", Cost(forward + self.prepare, backward).times(n), exact=False)

    def grown(self, k: int) -> Stage:
        """The growth to whole steps, the effects at the model itself once."""
        exact = self.fixed and not self.plan.pairs and not self.plan.curve
        first = bool(self.plan.anchor or self.plan.pairs)
        return Stage("grow", self.growth(k, first).times(self.n), exact)

    def growth(self, k: int, at_model: bool) -> Cost:
        """Of one prompt."""
        # A pair that enters takes the place of a step.
        step = min(self.plan.step, 2) if self.plan.pairs else self.plan.step
        return _growth(-(-k // step), self.plan.pairs, at_model)


def _steps(k: int, batch: int, share: float) -> int:
    """Passes until a circuit has k features."""
    steps, size = 0, 0
    while size < k:
        size += step_size(k - size, size, batch, share)
        steps += 1
    return steps


def _growth(steps: int, pairs: int, at_model: bool) -> Cost:
    """Of one prompt: a pass a step, what pairs are tried, and effects at the model itself."""
    tried = pairs * (pairs - 1) // 2 + 2 if pairs else 0
    return Cost(steps * (1 + tried) + at_model, steps + at_model)


class _Size(SimpleNamespace, Sized):
    """As much of a `Ground` as a selector's cost looks at."""

    def __init__(self, n: int, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._n = n

    def __len__(self) -> int:
        return self._n


def _prepare(plan: Plan, behavior: Behavior) -> int:
    """Forward passes that prepare a prompt; means are measured once, by the capture."""
    return 2 if plan.switches(behavior).baseline == "counterfactual" else 1
