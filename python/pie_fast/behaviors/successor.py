"""Successor: "Tuesday Wednesday Thursday" is followed by Friday; days, months and number words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pie_fast.behaviors.drafting import Draft, Draws, fill, single_words
from pie_fast.behaviors.pools import DAYS, MONTHS, NUMBERS

#: {X} is followed by its successor
TEMPLATES = (
    "The one that comes after {X} is",
    "First comes {X} and then comes",
    "We count {W} {X}",
    "They said {V} {W} {X}",
    "In the list we read {X} before",
    "Right before {W} is {V} and right after {W} is {X} and next is",
)


@dataclass(frozen=True)
class Successor:
    """The generator.

    Attributes:
        orders: Word lists, each in order; the first two are cyclic (days, months).
        templates: Templates with X, and W and V for the one and two words before it.
    """

    orders: tuple[tuple[str, ...], ...] = (DAYS, MONTHS, NUMBERS)
    templates: tuple[str, ...] = TEMPLATES
    n_cyclic: int = 2
    counterfactual: str = "other_start"
    metric: str = "logit-diff"
    kinds: ClassVar[tuple[str, ...]] = ("other_start",)

    def fitted(self, tokenizer: Any) -> Successor:
        """The same task with the lists whose words are all one token."""
        flat = [word for order in self.orders for word in order]
        kept = set(single_words(tokenizer, flat, 7, "days, months and number words"))
        flags = [kept.issuperset(order) for order in self.orders]
        orders = tuple(o for o, whole in zip(self.orders, flags, strict=True) if whole)
        # one list at least must have stayed whole: ask again, with an error that says so
        if not orders:
            single_words(tokenizer, DAYS, len(DAYS), "days")
        return replace(self, orders=orders, n_cyclic=sum(flags[: self.n_cyclic]))

    def draft(self, draws: Draws, index: int) -> Draft:
        """Draw one prompt; the foil is what follows the counterfactual's word."""
        which = draws.index(len(self.orders))
        order, cyclic = self.orders[which], which < self.n_cyclic
        # a list that is not a cycle needs two words before and one after
        low, high = (0, len(order)) if cyclic else (2, len(order) - 1)
        at, other = (low + i for i in draws.sample(range(high - low), 2))
        template = draws.choice(self.templates)

        def write(at: int) -> tuple[str, tuple[tuple[int, int, str], ...]]:
            words = {
                n: order[(at - back) % len(order)] for n, back in (("X", 0), ("W", 1), ("V", 2))
            }
            return fill(template, words)

        text, spans = write(at)
        n = len(order)
        answer, foil = order[(at + 1) % n], order[(other + 1) % n]
        return Draft(text, spans, f" {answer}", f" {foil}", write(other)[0])
