"""One interface for every selector that has the model at hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.cost import Cost
from pie_fast.errors import BudgetError, PieFastError
from pie_fast.ground import Ground
from pie_fast.selectors import Ranked

#: positions among the candidates in the order of selection, and what ranked them
Order = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True)
class Selector:
    """A way to choose K features.

    Attributes:
        name: For `--method`.
        words: One line for a reader.
        rule: From a `Ground`, a budget and keyword options to at least that many positions.
        nested: The first j of k features are what j selects, so that one run serves every budget;
            of conditional gradients where a pass ends at j.
        redundancy_aware: Does not take both of two features where the second adds nothing.
        features_only: Pools features, so that candidates of another unit will not do.
        cost: From the same arguments as `rule` to the most that it costs, where that is much and
            known before.
    """

    name: str
    words: str
    rule: Callable[..., Order]
    nested: bool = True
    redundancy_aware: bool = False
    features_only: bool = False
    cost: Callable[..., Cost] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Option -> default."""
        parameters = list(inspect.signature(self.rule).parameters.values())[2:]
        return {p.name: p.default for p in parameters}

    def read_options(self, texts: Sequence[str]) -> dict[str, Any]:
        """Options as `KEY=VALUE`, each read as what its default is.

        Raises:
            PieFastError: No such option, no value, or not of that kind.
        """
        found = {}
        for text in texts:
            name, given, value = text.partition("=")
            if not given:
                raise PieFastError(f"option {text!r} of selector {self.name} is not KEY=VALUE")
            self._check([name])
            kind = type(self.options[name])
            try:
                found[name] = kind(value)
            except ValueError:
                raise PieFastError(
                    f"option {name} of selector {self.name} is {value!r}, must be "
                    f"{'an integer' if kind is int else 'a number'}"
                ) from None
        return found

    def planned(self, ground: Ground, k: int, **options: Any) -> Cost | None:
        """The most that `select` costs; None where it is little or not known before."""
        if self.cost is None:
            return None
        self._check(options)
        return self.cost(ground, k, **{**self.options, **options})

    def select(self, ground: Ground, k: int, **options: Any) -> Ranked:
        """The first k features, with what they cost.

        Args:
            ground: Prompts and candidates.
            k: The budget.
            options: Of this selector, see `options`.

        Raises:
            BudgetError: `k` is negative or above the number of candidates.
            PieFastError: An option that the selector does not have, or a unit that it does not
                select.
        """
        return self.order(ground, k, **options).first(k)

    def order(self, ground: Ground, k: int, **options: Any) -> Ranked:
        """`select`, with as many more as cost nothing; none where the selector is not nested."""
        if not 0 <= k <= len(ground):
            raise BudgetError(f"budget {k} is outside 0 to {len(ground)}, the number of candidates")
        self._check(options)
        self.check_unit(ground.unit)
        before = ground.model.spent
        places, scores = self.rule(ground, k, **options)
        spent = ground.model.spent - before
        whole = Ranked(
            ground.ids[places],
            np.asarray(scores, dtype=np.float64),
            self.name,
            ground.model.clt.n_features,
            {**self.options, **options, "budget": k, "unit": ground.unit},
            spent.passes(len(ground.prompts)),
            ground.slots,
        )
        return whole if self.nested else whole.first(k)

    def check_unit(self, unit: str) -> None:
        """Refuse a unit that it does not select.

        Raises:
            PieFastError: With the unit that it needs.
        """
        if self.features_only and unit != "feature":
            raise PieFastError(f"selector {self.name} needs unit 'feature', not {unit!r}")

    def _check(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise PieFastError(f"selector {self.name} has no option {name!r}; it has: {known}")


def ranked(scores: NDArray[np.float64]) -> Order:
    """Everything, the largest first; of equals the lower id."""
    order = np.argsort(-scores, kind="stable")
    return order, scores[order]
