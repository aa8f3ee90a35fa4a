"""The options that the drop-in functions and their literal reference share, checked once.

Both :mod:`pie_fast.pie` and :mod:`pie_fast.reference` take the same keywords, refuse the same
input with the same error, and record the same settings in their results; this module is why.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sized
from dataclasses import asdict, dataclass
from typing import Any

from pie_fast.errors import BehaviorError, BudgetError, PieFastError

#: option -> its values, the default first
CHOICES: dict[str, tuple[str, ...]] = {
    "importance": ("fap", "patching"),
    "rank_by": ("mean_abs", "abs", "signed"),
    "synergy": ("clipped", "signed"),
    "bonus": ("mean", "sum"),
    "direction": ("noising", "denoising"),
    "estimator": ("exact", "gradient-difference"),
    "method": ("paper", "fap", "fap-synergy"),
    "kl_direction": ("model||circuit", "circuit||model"),
    "outputs": ("probabilities", "logits"),
}

#: the pool never shrinks below this many features (as far as there are so many)
SMALLEST_POOL = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """Every choice behind a selection; stored with its result.

    Attributes:
        importance: What ranks features: ``"fap"`` (gradient times value) or ``"patching"``.
        rank_by: How effects on prompts become one score: ``"mean_abs"``, the mean over prompts
            of \\|effect\\|; ``"abs"``, \\|mean effect\\|; ``"signed"``, the mean effect.
        synergy: ``"clipped"`` at zero as in the paper, or ``"signed"``.
        bonus: A candidate's synergies with the selected are summed and then divided by their
            number (``"mean"``, the paper's) or not (``"sum"``).
        direction: What a set of features is patched into: ``"noising"``, m(all) - m(all without
            the set); ``"denoising"``, m(only the set) - m(none).
        estimator: How pair synergies are measured: ``"exact"`` or ``"gradient-difference"``.
        method: ``"paper"``, ``"fap"`` (plain top-k) or ``"fap-synergy"`` (always reranked).
        pool_factor: The pool holds this many times the budget, and at least 200 features.
        strict_below: ``"paper"`` reranks by synergy when the budget is smaller than this.
    """

    importance: str = "fap"
    rank_by: str = "mean_abs"
    synergy: str = "clipped"
    bonus: str = "mean"
    direction: str = "noising"
    estimator: str = "exact"
    method: str = "paper"
    pool_factor: float = 4
    strict_below: int = 100

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in CHOICES:
                check_choice(name, value)
        if not (math.isfinite(self.pool_factor) and self.pool_factor >= 1):
            raise PieFastError(f"pool_factor {self.pool_factor} is not a number of at least 1")
        if self.strict_below < 0:
            raise PieFastError(f"strict_below {self.strict_below} is negative")

    def pool_size(self, budget: int) -> int:
        """M = max(pool_factor * K, 200); a pool of fewer active features holds them all.

        ``pool_factor=1`` is the exception: the pool is then the budget itself, which shows that
        reranking K features down to K changes nothing.
        """
        if self.pool_factor == 1:
            return budget
        return max(math.ceil(self.pool_factor * budget), SMALLEST_POOL)

    def regime(self, budget: int) -> tuple[str, str]:
        """The selector that runs at this budget, and the regime's name.

        Returns:
            ``("fap-synergy", "strict")`` or ``("fap", "moderate")`` or ``("fap", "relaxed")``
            for ``method="paper"``; otherwise the method and ``"chosen"``. The paper names the
            first and the last; ``"moderate"`` is our word for what lies between.
        """
        if self.method != "paper":
            return self.method, "chosen"
        if budget < self.strict_below:
            return "fap-synergy", "strict"
        return "fap", "relaxed" if budget >= 2 * self.strict_below else "moderate"

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        return asdict(self)


def check_choice(name: str, value: object) -> None:
    """Refuse a value that the option does not have.

    Raises:
        PieFastError: The value is not one of the option's.
    """
    if value not in CHOICES[name]:
        raise PieFastError(f"{name} {value!r} is not one of {', '.join(CHOICES[name])}")


def check_budget(budget_k: object) -> int:
    """The budget as an int.

    Raises:
        TypeError: It is not an integer.
        BudgetError: It is negative.
    """
    budget = operator.index(budget_k)  # type: ignore[arg-type]
    if budget < 0:
        raise BudgetError(f"budget {budget} is negative; valid budgets start at 0")
    return budget


def check_enough(budget: int, available: int, what: str) -> None:
    """Refuse a budget above what there is.

    Raises:
        BudgetError: ``budget`` exceeds ``available``; the message says how many there are.
    """
    if budget > available:
        raise BudgetError(f"budget {budget} exceeds the {available} {what}")


def check_finite(value: float, what: object) -> float:
    """The value itself.

    Raises:
        PieFastError: It is NaN or infinite.
    """
    if not math.isfinite(value):
        raise PieFastError(f"importance of {what} is {value}; importances must be finite")
    return value


def prompts_of(behaviors: Any, part: str = "behaviors") -> Any:
    """The prompts of ``behaviors`` as a sized collection that can be walked more than once.

    A sized collection is handed on as it is, because a model's own collection may know more
    than its items (a metric, say); only one-shot iterables are copied into a list. An object
    with the attribute ``part`` (``"behaviors"`` or ``"test_set"``) stands for what that holds.

    Raises:
        BehaviorError: There is not one prompt, or the object is no collection at all.
    """
    prompts = getattr(behaviors, part, behaviors)
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Iterable):
        raise BehaviorError(
            f"{part} of type {type(prompts).__name__} is not a collection of prompts"
        )
    if not isinstance(prompts, Sized):
        prompts = list(prompts)
    if len(prompts) == 0:
        raise BehaviorError(f"{part} has 0 prompts; at least 1 is needed")
    return prompts


def feature_set(features: Any) -> set[Any]:
    """One feature, or any collection of features, as a set."""
    if hasattr(features, "gradient") or not isinstance(features, Iterable):
        return {features}
    return set(features)
