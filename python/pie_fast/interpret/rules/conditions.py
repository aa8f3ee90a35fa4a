"""What rules are made of: conditions, terms (conditions that all hold), and what their words cost.

condition   the position's value in a family of facts is one of a set
term        conditions that all hold; the empty one holds everywhere
rule        one term or another
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pie_fast.interpret.contexts import Bools
from pie_fast.interpret.rules.facts import Facts, Value, is_of_tokens

#: what a condition must add to a rule's worth to be said
COST_CONDITION = 0.02

#: what each value of its set after the first must add: one more word to read
COST_VALUE = 0.02

#: the same in families of single tokens, whose sets name examples of something wider
COST_TOKEN = 0.005

#: what a term after the first must add, besides its conditions: an "or" is hard to read
COST_TERM = 0.02


@dataclass(frozen=True)
class Condition:
    """One of `values` (those that matter most first) is the position's value in `family`."""

    family: str
    values: tuple[Value, ...]

    @property
    def cost(self) -> float:
        """What it must add."""
        return COST_CONDITION + value_cost(self.family) * (len(self.values) - 1)

    def holds(self, facts: Facts) -> Bools:
        """``[n_tokens]`` bool: where it holds; nowhere if the corpus lacks the family."""
        family = facts.families.get(self.family)
        if family is None:
            return np.zeros(len(facts.corpus.tokens), dtype=bool)
        return family.among(self.values)


#: conditions that all hold
Term = tuple[Condition, ...]


def value_cost(family: str) -> float:
    """What each value of this family after the first must add."""
    named = is_of_tokens(family) and family != "previous_pair"  # a pair is two words to read
    return COST_TOKEN if named else COST_VALUE


def cost_of(terms: Sequence[Term]) -> float:
    """What the words of these terms must add together; 0 for the empty term alone."""
    said = sum(condition.cost for term in terms for condition in term)
    return said + COST_TERM * (len(terms) - 1)


def term_holds(term: Term, facts: Facts) -> Bools:
    """``[n_tokens]`` bool: where all its conditions hold."""
    holds = np.ones(len(facts.corpus.tokens), dtype=bool)
    for condition in term:
        holds &= condition.holds(facts)
    return holds


def any_holds(terms: Sequence[Term], facts: Facts) -> Bools:
    """``[n_tokens]`` bool: where at least one of the terms holds."""
    holds = np.zeros(len(facts.corpus.tokens), dtype=bool)
    for term in terms:
        holds |= term_holds(term, facts)
    return holds
