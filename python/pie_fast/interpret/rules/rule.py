"""Rules that say where a feature fires: mined, chosen and reported on parts of the prompts.

    mining      candidates (:mod:`pie_fast.interpret.rules.mining`), on half of the prompts
    choosing    the candidate worth most on that half and another quarter together, less what its
                words cost, among those that are worth it on the quarter alone; where there is
                none, the empty rule ("everywhere")
    reporting   what is said of the rule is measured on the last quarter, which chose nothing

Positions count, not prompts. What a rule is worth is read off the strengths, not off a threshold:
average precision of the positions where it holds (FADE's purity, on positions), corrected for
chance, and the share of the feature's strength that these positions have. Activations shuffled
over the positions are worth 0 in the mean; :mod:`pie_fast.interpret.rules.control` looks. Choosing
on the quarter alone was tried: rules held up less well on the last quarter (docstring circuit of
the demo model, 128 prompts: .79 average precision above chance instead of .86; 512 prompts: .86,
.90).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.errors import PieFastError
from pie_fast.interpret.contexts import Activity, Bools
from pie_fast.interpret.measures import above_chance, average_precision
from pie_fast.interpret.rules.conditions import Condition, Term, any_holds, cost_of
from pie_fast.interpret.rules.facts import Facts
from pie_fast.interpret.rules.mining import candidates
from pie_fast.interpret.rules.parts import CHOOSING, MINING, REPORTING, positions_in
from pie_fast.interpret.rules.ranking import Ranking
from pie_fast.interpret.rules.wording import describe, texts_of
from pie_fast.interpret.vocabulary import Vocabulary


@dataclass(frozen=True)
class HeldOut:
    """A rule on the positions of the reporting part, each weighted by its prompt.

    Attributes:
        average_precision: Of the positions where the rule holds, ranked by ``|activation|``;
            None where it holds at none of them, or at all.
        above_chance: The same corrected for chance: 0 for a ranking that knows nothing.
        prevalence: Share of the positions where the rule holds.
        coverage: Share of the feature's strength that lies where the rule holds.
        precision: Share of the positions where the rule holds at which it fires.
        recall: Share of the positions where it fires at which the rule holds.
        f1: Of precision and recall. All five are 0 where they have no denominator.
        n_holds: Positions where the rule holds, not weighted.
        n_fires: Positions where the feature fires.
        n_positions: All positions.
    """

    average_precision: float | None
    above_chance: float | None
    prevalence: float
    coverage: float
    precision: float
    recall: float
    f1: float
    n_holds: int
    n_fires: int
    n_positions: int

    @classmethod
    def of(cls, holds: Bools, strength: NDArray[Any], weights: NDArray[np.float64]) -> HeldOut:
        """Measure a prediction.

        Args:
            holds: ``[n]`` bool, where the rule holds.
            strength: ``[n]`` floats, ``|activation|``.
            weights: ``[n]`` float64.
        """
        fires = strength > 0
        hits, said, there = (float(weights[x].sum()) for x in (holds & fires, holds, fires))
        prevalence = _ratio(said, float(weights.sum()))
        purity = average_precision(strength, holds, weights)
        mass = weights * strength
        return cls(
            average_precision=purity,
            above_chance=None if purity is None else above_chance(purity, prevalence),
            prevalence=prevalence,
            coverage=_ratio(float(mass[holds].sum()), float(mass.sum())),
            precision=_ratio(hits, said),
            recall=_ratio(hits, there),
            f1=_ratio(2 * hits, said + there),
            n_holds=int(holds.sum()),
            n_fires=int(fires.sum()),
            n_positions=len(holds),
        )


@dataclass(frozen=True)
class Rule:
    """Where a feature fires: where one of the terms holds.

    Attributes:
        terms: Each a conjunction of conditions; one empty term means everywhere.
        held_out: Measured on prompts that neither mined nor chose it.
    """

    terms: tuple[Term, ...]
    held_out: HeldOut

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of all terms; none where the rule says nothing."""
        return tuple(condition for term in self.terms for condition in term)

    def holds(self, facts: Facts) -> Bools:
        """``[n_tokens]`` bool: where it holds."""
        return any_holds(self.terms, facts)

    def to_dict(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """Plain values, ready for JSON: the words, the terms, and what was measured."""
        terms = [
            [
                {
                    "family": condition.family,
                    "values": [_plain(value) for value in condition.values],
                    "texts": texts_of(condition, vocabulary),
                }
                for condition in term
            ]
            for term in self.terms
        ]
        return {
            "text": describe(self.terms, vocabulary, spelled=None),
            "terms": terms,
            "held_out": asdict(self.held_out),
        }


def mine_rule(
    facts: Facts,
    activity: Activity,
    weights: ArrayLike | None = None,
    *,
    at_least: int | None = None,
    parts: tuple[int, int, int] = (MINING, CHOOSING, REPORTING),
) -> Rule | None:
    """The rule that best says where a feature fires.

    Args:
        facts: Of the activity's corpus.
        activity: The feature's.
        weights: ``[n_prompts]`` floats, how many prompts each one stands for; 1 if not given.
        parts: To mine on, to choose on besides, and to report on. Any others overrate the rule; the
            control shows by how much.
        at_least: Choose among rules that hold, and do not hold, at so many positions of the
            reporting part. That looks at the prompts there, not at what the feature does.

    Returns:
        The rule, or None where the feature fires in fewer than three prompts: then there are not
        enough to mine, choose and report on. None too where no rule holds often enough.

    Raises:
        PieFastError: Facts and activity are of different corpora, or weights do not fit them.
    """
    weight = weights_of_positions(activity, weights)
    if facts.corpus is not activity.corpus:
        raise PieFastError("the facts and the activity are of different corpora")
    if activity.n_active_prompts < 3:
        return None
    strength = strength_of(activity)
    mined, unseen = (positions_in(activity, part) for part in parts[:2])
    mining, both, fresh = (Ranking(strength, at, weight) for at in (mined, mined | unseen, unseen))
    at = positions_in(activity, parts[2])
    rules = list(candidates(facts, mining))
    if at_least is not None:
        counts = [int(any_holds(terms, facts)[at].sum()) for terms in rules]
        kept = zip(rules, counts, strict=True)
        rules = [r for r, n in kept if at_least <= n <= int(at.sum()) - at_least]
    if not rules:
        return None
    terms = _choose(rules, facts, both, fresh)
    holds = any_holds(terms, facts)
    return Rule(terms, HeldOut.of(holds[at], strength[at], weight[at]))


def strength_of(activity: Activity) -> NDArray[np.float64]:
    """``[n_tokens]`` float64, ``|activation|`` at every position."""
    strength = np.zeros(len(activity.corpus.tokens))
    strength[activity.at] = np.abs(activity.activation)
    return strength


def weights_of_positions(activity: Activity, weights: ArrayLike | None) -> NDArray[np.float64]:
    """Weights of prompts as weights of positions: ``[n_tokens]`` float64.

    Args:
        activity: Whose corpus it is.
        weights: ``[n_prompts]`` floats, or None.

    Raises:
        PieFastError: Not one weight for each prompt, or one that is not finite and above 0.
    """
    corpus = activity.corpus
    if weights is None:
        return np.ones(len(corpus.tokens))
    each = np.asarray(weights, dtype=np.float64)
    if each.shape != (corpus.n_prompts,):
        raise PieFastError(f"weights have shape {each.shape}; there are {corpus.n_prompts} prompts")
    bad = ~(np.isfinite(each) & (each > 0))
    if bad.any():
        raise PieFastError(f"a prompt has weight {each[bad][0]}; weights are finite and above 0")
    return each[corpus.prompt]


def _choose(
    rules: Sequence[tuple[Term, ...]], facts: Facts, both: Ranking, fresh: Ranking
) -> tuple[Term, ...]:
    """The rule worth most less its cost among those worth it on the fresh prompts alone.

    Of equals it is the cheaper one, then the first; the first rule of all where none is worth it.
    """
    best, best_key = rules[0], (0.0, 0.0)
    for terms in rules:
        holds, cost = any_holds(terms, facts), cost_of(terms)
        # rounded: differences below 1e-9 are of the arithmetic
        key = (round(both.worth_of(holds) - cost, 9), -cost)
        if key > best_key and fresh.worth_of(holds) > cost:
            best, best_key = terms, key
    return best


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
