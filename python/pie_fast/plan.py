"""The choices of a run of `pie_fast.discover`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pie_fast.behaviors import Behavior
from pie_fast.budget import check_between
from pie_fast.capture import default_switches
from pie_fast.errors import BudgetError, PieFastError
from pie_fast.methods import selector_named
from pie_fast.missed import fewest_subsets
from pie_fast.model import Switches
from pie_fast.options import SMALLEST_POOL
from pie_fast.selectors import DUMP_METHODS, Options
from pie_fast.slots import UNITS

#: of `auto`: named by the choice prompts of the study (docs/study.md)
ANCHOR = 0.2


@dataclass(frozen=True)
class Plan:
    """The choices of a run; all of them are in its result.

    Attributes:
        budget: K; None: the smallest that surely reaches `target_fidelity`, chosen on the first
            half of the held-out prompts and reported on the second.
        target_fidelity: Of an automatic budget.
        knee: Without a budget: the knee of the fidelity curve, chosen on the same half, instead.
        options: Of the selector.
        metric: Of the behaviour when None.
        baseline: Counterfactual where the behaviour has one, else mean, when None.
        error, attention, activations: See `Switches`.
        gradient: A rule of `pie_fast.gradients`.
        direction: Of the synergy.
        estimator: Of the synergy: `gradient-difference` or `exact`.
        pool_factor: The pool holds `max(pool_factor * K, 200)` features, or all active ones.
        synergy_prompts: At most so many prompts measure synergy.
        ablation_prompts: At most so many prompts measure the exact effect of what is kept.
        step: Features that enter after each pass of the conditional gradient.
        stability: Bootstrap resamples of the selection prompts that are selected on again, to say
            how often each feature is; 0: none.
        pairs: Shortlist of the conditional gradient's pair moves; 0: none.
        method_options: Of the selector, see `pie_fast.methods`; they come before every other
            choice that has their name.
        missed: Random halves of the rejected features that bound what the selection left out;
            0: none.
        curve: Also evaluate the selectors over budgets.
        batch_size: Prompts a batch.
        unit: What K counts: `feature`, or `node`, a feature at a slot (`pie_fast.nodes`).
    """

    budget: int | None
    options: Options = field(default_factory=Options)
    target_fidelity: float = 0.9
    knee: bool = False
    metric: str | None = None
    baseline: str | None = None
    error: str = "keep"
    attention: str = "recompute"
    activations: str = "recompute"
    gradient: str = "full"
    direction: str = "noising"
    estimator: str = "gradient-difference"
    pool_factor: float = 4
    synergy_prompts: int = 32
    ablation_prompts: int = 32
    step: int = 5
    stability: int = 0
    pairs: int = 0
    missed: int = 0
    curve: bool = True
    batch_size: int = 32
    unit: str = "feature"
    method_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise BudgetError(f"budget {self.budget} is not valid; budgets start at 1")
        if self.budget is not None and self.knee:
            raise BudgetError(f"budget {self.budget} is given, so there is no knee to look for")
        if self.stability < 0:
            raise PieFastError(f"stability {self.stability} is not a number of at least 0")
        if self.missed and self.missed < fewest_subsets():
            raise PieFastError(
                f"missed {self.missed} is not 0 and not at least {fewest_subsets()}, the fewest "
                "that give a bound"
            )
        check_between("target_fidelity", self.target_fidelity, 0.0)
        if not self.pool_factor >= 1:
            raise PieFastError(f"pool_factor {self.pool_factor} is not a number of at least 1")
        self._check_unit()

    def _check_unit(self) -> None:
        if self.unit not in UNITS:
            raise PieFastError(f"unit {self.unit!r} is not one of {', '.join(UNITS)}")
        if self.unit == "node":
            # The paper's method reranks by synergy.
            name = "fap-synergy" if self.method == "paper" else self.method
            selector_named(name).check_unit(self.unit)
            if self.missed:
                raise PieFastError(f"missed {self.missed} needs unit 'feature', not 'node'")

    @property
    def method(self) -> str:
        """The plan's method; `auto` is the best there is, which needs the model."""
        method = self.options.method
        return "conditional-gradient" if method == "auto" else method

    @property
    def anchor(self) -> float:
        """Of the conditional gradient, see `pie_fast.conditional.grow`."""
        return ANCHOR if self.options.method == "auto" else 0.0

    @property
    def by_registry(self) -> bool:
        """`pie_fast.methods` runs the selector; for the others `discover` has their own stages."""
        of_dump = self.unit == "feature" and self.method in DUMP_METHODS
        own_stage = of_dump or self.method == "conditional-gradient"
        return not own_stage or bool(self.method_options)

    @property
    def keeps_prompts(self) -> bool:
        """The selection keeps all its prompts prepared; without, they stream through."""
        return self.by_registry or self.method == "conditional-gradient"

    def selector_options(self, names: Collection[str]) -> dict[str, Any]:
        """What the plan says of options of these names."""
        said = {
            **vars(self.options),
            "gradient": self.gradient,
            "direction": self.direction,
            "estimator": self.estimator,
            "synergy_prompts": self.synergy_prompts,
            "pairs": self.pairs,
            "anchor": self.anchor,
        }
        if self.method == "conditional-gradient":
            said["batch"] = self.step
        return {**{name: said[name] for name in names if name in said}, **self.method_options}

    def switches(self, behavior: Behavior) -> Switches:
        """Of every replacement run."""
        baseline = self.baseline or default_switches(behavior).baseline
        return Switches(baseline, self.error, self.attention, self.activations)

    def pool_size(self, n_active: int) -> int:
        """M; with a factor of 1 the budget itself, which shows that reranking K to K is a no-op."""
        budget = self.budget or 0
        wanted = max(int(self.pool_factor * budget), SMALLEST_POOL)
        return min(budget if budget and self.pool_factor == 1 else wanted, n_active)
