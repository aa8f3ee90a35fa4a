"""One selector asked for several budgets, as a search for a budget and a curve ask it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from numpy.typing import ArrayLike

from pie_fast.cost import Cost
from pie_fast.ground import Ground
from pie_fast.methods.selector import Selector
from pie_fast.selectors import Ranked


class Selections:
    """What a selector chose on a ground so far; no answer is worked out twice.

    Args:
        ground: Prompts and candidates.
        selector: Of the registry.
        options: Of the selector.

    Attributes:
        spent: By all selections so far.
    """

    def __init__(self, ground: Ground, selector: Selector, options: dict[str, Any]) -> None:
        self.ground, self.selector, self.options = ground, selector, options
        self.spent = Cost()
        self._orders: dict[int, Ranked] = {}

    def planned(self, k: int) -> Cost | None:
        """The most that `first(k)` will cost; None where that is little, unknown or paid."""
        if self._known(k) is not None:
            return None
        return self.selector.planned(self.ground, k, **self.options)

    def first(self, k: int) -> Ranked:
        """The k features, with the cost of all selections so far."""
        found = self._known(k)
        if found is None:
            before = self.ground.model.spent
            found = self._orders[k] = self.selector.order(self.ground, k, **self.options)
            self.spent += self.ground.model.spent - before
        return replace(
            found.first(k),
            settings={**found.settings, "budget": k},
            cost=self.spent.passes(len(self.ground.prompts)),
        )

    def longest(self, k: int) -> Ranked:
        """The longest order that begins with the first k; those k alone where it is not nested."""
        first = self.first(k)
        if not self.selector.nested:
            return first
        return max(self._orders.values(), key=lambda order: len(order.ids))

    def again(self, k: int, weights: ArrayLike) -> Ranked:
        """The k features on reweighted prompts."""
        return self.selector.select(self.ground.reweighted(weights), k, **self.options)

    def to_dict(self) -> dict[str, Any]:
        """What was chosen so far, and what it cost, as plain values."""
        orders = {str(k): order.to_dict() for k, order in self._orders.items()}
        return {"orders": orders, "spent": asdict(self.spent)}

    def know(self, saved: dict[str, Any]) -> None:
        """What `to_dict` gave, in an earlier process say, takes the place of what is known."""
        self.spent = Cost(**saved["spent"])
        self._orders = {
            int(k): Ranked.from_dict(order, self.ground.slots)
            for k, order in saved["orders"].items()
        }

    def _known(self, k: int) -> Ranked | None:
        if k in self._orders:
            return self._orders[k]
        if not self.selector.nested:
            return None
        return next((o for o in self._orders.values() if len(o.ids) >= k), None)
