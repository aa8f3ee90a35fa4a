"""The budget that a behaviour needs: the smallest K whose circuit is surely good enough.

    fidelity(K) = 1 - min(mean KL(model || circuit of the first K), 1)

`choose_budget` doubles K until the lower confidence bound of the fidelity reaches the target, and
then bisects: about 2 log2(K) forward passes over the prompts. What is chosen on some held-out
prompts is to be reported on others; `pie_fast.discover` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pie_fast.behaviors import Prompt
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.evaluate import fidelity
from pie_fast.gated import gated_pool, with_slots
from pie_fast.metrics import kl_divergence
from pie_fast.model import Replacer, Switches
from pie_fast.slots import Slots

N_BOOTSTRAP = 2000

#: the first budget that is tried
SMALLEST = 5

#: the first k features of a selector, best first; a longer order begins with every shorter one
Order = Callable[[int], Sequence[int] | NDArray[np.integer]]

#: called with the number of budgets tried and the most that are needed
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BudgetPoint:
    """What one budget reaches.

    Attributes:
        budget: K.
        fidelity: Of the circuit of the first K features.
        lower: Its lower confidence bound (one-sided, bootstrap over prompts).
    """

    budget: int
    fidelity: float
    lower: float


@dataclass(frozen=True)
class BudgetChoice:
    """A budget, and what was looked at to choose it.

    Attributes:
        budget: The smallest K that was tried and whose lower bound reaches the target, while the
            next smaller one does not. Fidelity need not grow with K: an untried K below may too.
        target_fidelity: As asked for.
        confidence: As asked for.
        n_prompts: Over which fidelity was measured.
        tried: Every budget tried, ascending.
    """

    budget: int
    target_fidelity: float
    confidence: float
    n_prompts: int
    tried: tuple[BudgetPoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `result.json` holds it."""
        return asdict(self)


def choose_budget(
    model: Replacer,
    order: Order | Sequence[int] | NDArray[np.integer],
    prompts: Sequence[Prompt],
    largest: int | None = None,
    *,
    target_fidelity: float = 0.9,
    confidence: float = 0.95,
    switches: Switches | None = None,
    mean_of: Sequence[Prompt] = (),
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
    slots: Slots | None = None,
) -> BudgetChoice:
    """The smallest budget whose fidelity is, with confidence, at least the target.

    Args:
        model: The replacement model.
        order: Global feature ids, best first, or a function of k that gives the first k. Ids of
            nodes where there are slots.
        prompts: Held-out prompts.
        largest: Nothing beyond is tried; needed where `order` is a function.
        target_fidelity: Between 0 and 1.
        confidence: Of the lower bound, between 0.5 and 1.
        switches: Baseline and the rest; the default `Switches` when None.
        mean_of: Prompts that `baseline="mean"` averages over; `prompts` when empty.
        batch_size: Prompts a batch.
        seed: Of the bootstrap.
        progress: Called after each budget.
        slots: Of the nodes, see `pie_fast.nodes`.

    Raises:
        BudgetError: No budget up to `largest` reaches the target; the message says what does.
        BehaviorError: There are no prompts.
        PieFastError: Target or confidence out of range.
    """
    check_between("target_fidelity", target_fidelity, 0.0)
    kl_at, largest = kl_by_budget(
        model, order, prompts, largest, confidence, switches, mean_of, batch_size, slots
    )
    draws = np.random.default_rng(seed).integers(0, len(prompts), (N_BOOTSTRAP, len(prompts)))
    points: dict[int, BudgetPoint] = {}

    def reaches(k: int) -> bool:
        kl = kl_at(k)
        lower = fidelity(float(np.quantile(kl[draws].mean(1), confidence)))
        points[k] = BudgetPoint(k, fidelity(float(kl.mean())), lower)
        if progress is not None:
            progress(len(points), 2 * int(largest).bit_length())
        return lower >= target_fidelity

    budget = _smallest(reaches, largest)
    tried = tuple(points[k] for k in sorted(points))
    if budget is None:
        best = max(tried, key=lambda point: point.lower)
        raise BudgetError(
            f"no budget up to {largest} surely reaches fidelity {target_fidelity:g}: the lower "
            f"bound at K={best.budget} is {best.lower:.3f} (fidelity {best.fidelity:.3f})"
        )
    return BudgetChoice(budget, target_fidelity, confidence, len(prompts), tried)


def _smallest(reaches: Callable[[int], bool], largest: int) -> int | None:
    """The smallest k up to `largest` that reaches, by doubling and bisection; None: none does."""
    below, k = 0, min(SMALLEST, largest)
    while not reaches(k):
        if k == largest:
            return None
        below, k = k, min(2 * k, largest)
    while k - below > 1:
        middle = (below + k) // 2
        below, k = (below, middle) if reaches(middle) else (middle, k)
    return k


def kl_by_budget(
    model: Replacer,
    order: Order | Sequence[int] | NDArray[np.integer],
    prompts: Sequence[Prompt],
    largest: int | None,
    confidence: float,
    switches: Switches | None,
    mean_of: Sequence[Prompt],
    batch_size: int,
    slots: Slots | None,
) -> tuple[Callable[[int], NDArray[np.float64]], int]:
    """A function from k to the KL of the first k units on each prompt, and the largest k.

    Arguments are checked as `choose_budget` and `choose_knee` promise; the model itself runs once.
    """
    check_between("confidence", confidence, 0.5)
    if not prompts:
        raise BehaviorError("there are 0 prompts; at least 1 is needed")
    first, largest = _as_order(order, largest)
    prepared = model.prepare_all(prompts, switches or Switches(), mean_of, batch_size=batch_size)
    setups = [setup for _, setup in with_slots(prepared, prompts, slots)]

    def kl_at(k: int) -> NDArray[np.float64]:
        circuit = gated_pool(model, first(k), slots)
        with torch.no_grad():
            runs = [model.run(setup, *circuit, rest="baseline").logits[0] for setup in setups]
            kl = [kl_divergence(s.logits, run) for s, run in zip(setups, runs, strict=True)]
        return torch.cat(kl).cpu().double().numpy()

    return kl_at, largest


def _as_order(
    order: Order | Sequence[int] | NDArray[np.integer], largest: int | None
) -> tuple[Order, int]:
    if not callable(order):
        largest = len(order) if largest is None else min(len(order), largest)
        order = _prefixes(order)
    if largest is None or largest < 1:
        raise BudgetError(f"largest is {largest}, must be at least 1")
    return order, largest


def _prefixes(ids: Sequence[int] | NDArray[np.integer]) -> Order:
    return lambda k: ids[:k]


def check_between(name: str, value: float, low: float) -> None:
    """Refuse a share outside the open interval from `low` to 1.

    Raises:
        PieFastError: With name and value.
    """
    if not low < value < 1:
        raise PieFastError(f"{name} is {value}, must be above {low:g} and below 1")
