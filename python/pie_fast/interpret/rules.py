"""Rules that say where a feature fires, mined on one half of the prompts, judged on the other.

    rule       conjunction of conditions; a condition is a family of facts and a set of its values
    mining     for one family, the set of values with the best F1 (always a prefix of the
               values by precision), cut where its tail does not pay for its words
    beam       the best few single conditions are each joined with a second family, whose values
               are mined again among the positions that the first leaves
    choice     the candidate with the best F1 on the held-out half less `COST_*`; the empty rule
               ("everywhere") is a candidate too, and wins where nothing else is worth its cost

Positions count, not prompts: every position of every prompt is either a firing or not. Nothing
favours a rule but the choice among some dozens of candidates on the half that judges it. That is
worth a few hundredths of F1 where the held-out half is small: activations shuffled over the
positions of 64 prompts reached .02 to .04 more than firing at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pie_fast.errors import PieFastError
from pie_fast.interpret.contexts import Activity, Bools, Ints
from pie_fast.interpret.facts import Facts, Family, Value, is_of_tokens

#: what a condition must add to F1 to be worth saying
COST_CONDITION = 0.02

#: and what each value of its set after the first must add: one more word to read
COST_VALUE = 0.02

#: the same in families with thousands of values, whose sets name examples of something wider
COST_TOKEN = 0.005

#: single conditions that are joined with a second one
BEAM = 4


@dataclass(frozen=True)
class Condition:
    """One of `values` (those that matter most first) is the position's value in `family`."""

    family: str
    values: tuple[Value, ...]

    @property
    def cost(self) -> float:
        """What it must add to F1."""
        return COST_CONDITION + _value_cost(self.family) * (len(self.values) - 1)

    def holds(self, facts: Facts) -> Bools:
        """``[n_tokens]`` bool: where it holds; nowhere if the corpus lacks the family."""
        family = facts.families.get(self.family)
        if family is None:
            return np.zeros(len(facts.corpus.tokens), dtype=bool)
        return family.among(self.values)


@dataclass(frozen=True)
class Score:
    """How well a prediction fits: 0 where a ratio has no denominator."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, predicted: Bools, fires: Bools) -> Score:
        """Compare two ``[n]`` bool arrays."""
        hits, said, there = (int(x.sum()) for x in (predicted & fires, predicted, fires))
        return cls(
            hits / said if said else 0.0,
            hits / there if there else 0.0,
            2 * hits / (said + there) if said + there else 0.0,
        )


@dataclass(frozen=True)
class Rule:
    """Where a feature fires, in conditions that all hold.

    Attributes:
        conditions: At most two; none means everywhere.
        held_out: Measured on the prompts that it was not mined on.
        base_f1: F1 of the empty rule there, what knowing nothing is worth.
    """

    conditions: tuple[Condition, ...]
    held_out: Score
    base_f1: float

    @property
    def cost(self) -> float:
        """What its words cost in the choice."""
        return sum(condition.cost for condition in self.conditions)

    def holds(self, facts: Facts) -> Bools:
        """``[n_tokens]`` bool: where all conditions hold."""
        return _holds(self.conditions, facts)


def mine_rule(facts: Facts, activity: Activity) -> Rule | None:
    """The rule that best says where a feature fires.

    Args:
        facts: Of the activity's corpus.
        activity: The feature's.

    Returns:
        The rule, or None where the feature fires in fewer than two prompts: then there is
        nothing to judge a rule on.

    Raises:
        PieFastError: Facts and activity are of different corpora.
    """
    if facts.corpus is not activity.corpus:
        raise PieFastError("the facts and the activity are of different corpora")
    if activity.n_active_prompts < 2:
        return None
    mining = split_prompts(activity)[facts.corpus.prompt]
    fires, held_out = activity.fires, ~mining
    base = Score.of(held_out[held_out], fires[held_out]).f1
    names = list(facts.families)
    best: tuple[tuple[float, float, list[int]], Rule] | None = None
    for conditions in _candidates(facts, fires, mining):
        score = Score.of(_holds(conditions, facts)[held_out], fires[held_out])
        rule = Rule(conditions, score, base)
        order = [names.index(condition.family) for condition in conditions]
        # rounded: differences below 1e-9 are of the arithmetic, and the cheaper rule is better
        key = (-round(score.f1 - rule.cost, 9), rule.cost, order)
        if best is None or key < best[0]:
            best = key, rule
    assert best is not None, "the empty rule is always a candidate"
    return best[1]


def split_prompts(activity: Activity) -> Bools:
    """Which prompts rules are mined on: ``[n_prompts]`` bool, the others are held out.

    Half of the prompts it fires in and half of the others, drawn by a fixed hash of their index:
    generated behaviours alternate templates by parity, which halves by parity would keep apart.
    """
    corpus = activity.corpus
    active = np.zeros(corpus.n_prompts, dtype=bool)
    active[corpus.prompt[activity.at]] = True
    order = np.lexsort((_hash(np.arange(corpus.n_prompts)), active))
    mining = np.zeros(corpus.n_prompts, dtype=bool)
    mining[order[::2]] = True
    return mining


def best_values(
    family: Family, fires: Bools, among: Bools, n_firing: int, value_cost: float
) -> tuple[Value, ...]:
    """The set of values with the best F1, less a tail not worth its cost; empty if none fires.

    Args:
        family: The facts.
        fires: ``[n_tokens]`` bool.
        among: ``[n_tokens]`` bool, the positions that may be predicted.
        n_firing: Positions to be found, whether or not they are in `among`.
        value_cost: What each value after the first must add.
    """
    seen = among & (family.codes >= 0)
    codes, n_values = family.codes[seen], len(family.values)
    said = np.bincount(codes, minlength=n_values)
    hits = np.bincount(codes[fires[seen]], minlength=n_values)
    found = np.flatnonzero(hits)
    if len(found) == 0:
        return ()
    by_precision = found[np.argsort(-hits[found] / said[found], kind="stable")]
    f1 = _prefix_f1(hits[by_precision], said[by_precision], n_firing)
    optimal = by_precision[: int(np.argmax(f1)) + 1]
    # Within the best set, the values that matter most come first, and the cost cuts the tail.
    gain = 2 * hits[optimal] - f1.max() * said[optimal]
    ordered = optimal[np.argsort(-gain, kind="stable")]
    f1 = _prefix_f1(hits[ordered], said[ordered], n_firing)
    n = int(np.argmax(f1 - value_cost * np.arange(len(f1)))) + 1
    return tuple(family.values[i] for i in ordered[:n].tolist())


def _candidates(facts: Facts, fires: Bools, mining: Bools) -> Iterator[tuple[Condition, ...]]:
    """Every rule that is judged: the empty one, one for each family, and the joined ones."""
    yield ()
    n_firing = int((fires & mining).sum())
    singles: list[tuple[float, Condition]] = []
    for name, family in facts.families.items():
        values = best_values(family, fires, mining, n_firing, _value_cost(name))
        if values:
            condition = Condition(name, values)
            f1 = Score.of(condition.holds(facts)[mining], fires[mining]).f1
            singles.append((f1 - condition.cost, condition))
            yield (condition,)
    singles.sort(key=lambda item: -item[0])  # stable: equals stay in the order of the families
    for _, first in singles[:BEAM]:
        among = mining & first.holds(facts)
        for name, family in facts.families.items():
            if name == first.family:
                continue
            values = best_values(family, fires, among, n_firing, _value_cost(name))
            if values:
                yield first, Condition(name, values)


def _value_cost(family: str) -> float:
    return COST_TOKEN if is_of_tokens(family) else COST_VALUE


def _holds(conditions: Sequence[Condition], facts: Facts) -> Bools:
    holds = np.ones(len(facts.corpus.tokens), dtype=bool)
    for condition in conditions:
        holds &= condition.holds(facts)
    return holds


def _prefix_f1(hits: Ints, said: Ints, n_firing: int) -> NDArray[np.float64]:
    """``[n]`` float64: F1 of predicting the first value, the first two, ..."""
    f1: NDArray[np.float64] = 2 * np.cumsum(hits) / (np.cumsum(said) + n_firing)
    return f1


def _hash(index: Ints) -> Ints:
    """The splitmix64 finaliser: indices in an order that has nothing to do with the prompts."""
    x = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    mixed = x ^ (x >> np.uint64(31))
    # uint64 keys sort as they are; a signed view is only another fixed order
    return mixed.view(np.int64)
