"""Candidate rules of one feature, found on the mining part.

    value set   of one family: values in the order of mean strength, cut where the worth is
                highest; then by strength in all, cut where the tail does not pay for its words
    term        a beam: the best few conditions are each joined with another family, whose values
                are found again among the positions that the first leave
    rule        the best few terms are each joined by "or" with a second one, found likewise
                among the positions that the first does not say

Worth is that of :mod:`pie_fast.interpret.rules.ranking`. Everything on the way is a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pie_fast.interpret.contexts import Bools, Ints
from pie_fast.interpret.rules.conditions import (
    Condition,
    Term,
    any_holds,
    cost_of,
    term_holds,
    value_cost,
)
from pie_fast.interpret.rules.facts import EARLIER, Facts, Family, Value
from pie_fast.interpret.rules.ranking import Doubles, Ranking

#: conditions of a term
MAX_CONDITIONS = 3

#: terms that are joined with another condition
BEAM = 4

#: terms that are joined with a second term
KEPT = 2

#: values of a set
MAX_VALUES = 16

#: rank of a value that is in no set
_NEVER = np.iinfo(np.int64).max


def candidates(facts: Facts, ranking: Ranking) -> Iterator[tuple[Term, ...]]:
    """Every rule that is to be judged, the empty one first.

    Args:
        facts: Of the corpus.
        ranking: The feature on the mining part.
    """
    yield ((),)
    first = _terms(facts, ranking, ())
    yield from ((term,) for term in first)
    for term in first[:KEPT]:
        yield from ((term, second) for second in _terms(facts, ranking, (term,)))


def best_values(
    family: Family, ranking: Ranking, among: Bools, said: Bools, cost: float
) -> tuple[Value, ...]:
    """The value set worth most, less a tail not worth its cost; empty if it fires at none.

    Args:
        family: The facts.
        ranking: The feature on some positions.
        among: ``[n_tokens]`` bool, the positions that the set may predict.
        said: ``[n_tokens]`` bool, positions that are predicted whatever the set.
        cost: What each value after the first must add.
    """
    sets = _Sets(family, ranking, among, said)
    firing = np.flatnonzero(sets.mass > 0)
    if len(firing) == 0:
        return ()
    strength = sets.mass[firing] / sets.weight[firing]
    order = firing[np.argsort(-strength, kind="stable")][:MAX_VALUES]
    best = order[: int(np.argmax(np.round(sets.worth(order), 12))) + 1]
    # within the best set, the values that matter most come first, and the cost cuts the tail
    order = best[np.argsort(-sets.mass[best], kind="stable")]
    net = sets.worth(order) - cost * np.arange(len(order))
    n = int(np.argmax(np.round(net, 12))) + 1
    return tuple(family.values[i] for i in order[:n].tolist())


class _Sets:
    """The values of a family at the positions of a ranking."""

    def __init__(self, family: Family, ranking: Ranking, among: Bools, said: Bools) -> None:
        self._ranking, n = ranking, len(family.values)
        free = among & ~said & (family.codes >= 0)
        self._codes, self._free = family.codes[ranking.firing], free[ranking.firing]
        self._said = said[ranking.firing]
        self._silent_said = float(ranking.silent_weight[said[ranking.silent]].sum())
        silent = free[ranking.silent]
        codes = self._codes[self._free]
        self._silent = np.bincount(
            family.codes[ranking.silent][silent], ranking.silent_weight[silent], n
        )
        #: ``[n_values]`` float64 total strength and total weight of each value's positions
        self.mass = np.bincount(codes, ranking.mass[self._free], n)
        firing = np.bincount(codes, ranking.firing_weight[self._free], n)
        self.weight = self._silent + firing

    def worth(self, order: Ints) -> Doubles:
        """Of the first value in this order, the first two, ...: ``[len(order)]`` float64."""
        rank = np.full(len(self.mass), _NEVER)
        rank[order] = np.arange(len(order))
        ranks = np.where(self._free, rank[np.maximum(self._codes, 0)], _NEVER)
        rows = (ranks <= np.arange(len(order))[:, None]) | self._said
        silent: Doubles = np.cumsum(self._silent[order], dtype=np.float64) + self._silent_said
        return self._ranking.worth(rows, silent)


def _terms(facts: Facts, ranking: Ranking, prior: tuple[Term, ...]) -> list[Term]:
    """Terms to be joined to `prior` by "or", best first."""
    said = any_holds(prior, facts)
    beam: list[Term] = [()]
    found: list[tuple[float, Term]] = []
    seen: set[frozenset[Condition]] = set()
    for _ in range(MAX_CONDITIONS):
        new = []
        for term in beam:
            joined = _joined(term, facts, ranking, said)
            for longer in (shorter for full in joined for shorter in _without_one(full)):
                if frozenset(longer) in seen:  # the same conditions in another order
                    continue
                seen.add(frozenset(longer))
                worth = ranking.worth_of(said | term_holds(longer, facts))
                new.append((worth - cost_of([longer]), longer))
        found += new
        beam = _best(new)[:BEAM]
    return _best(found)


def _joined(term: Term, facts: Facts, ranking: Ranking, said: Bools) -> Iterator[Term]:
    """The term and one more condition, for each family that it has none of."""
    among, used = term_holds(term, facts), {condition.family for condition in term}
    for name, family in facts.families.items():
        # a role that one token always plays tells prompts not apart
        same = name.startswith(EARLIER) and len(family.values) < 2
        if name not in used and not same:
            values = best_values(family, ranking, among, said, value_cost(name))
            if values:
                yield (*term, Condition(name, values))


def _without_one(term: Term) -> Iterator[Term]:
    """The term, and what is left of it without one of its first conditions.

    A set found among few positions may be right for all: then what led to it can go.
    """
    yield term
    yield from (term[:i] + term[i + 1 :] for i in range(len(term) - 1))


def _best(scored: Sequence[tuple[float, Term]]) -> list[Term]:
    """Best first; equals stay in the order found, which is that of the families."""
    return [term for _, term in sorted(scored, key=lambda item: -round(item[0], 9))]
