"""The honest zero: what rules seem to be worth where there is nothing to find.

A feature's activations are permuted over all counted positions, a rule is mined and chosen in that
world as usual, and its signed responsiveness and clarity are measured where they always are. Only
rules that hold at enough positions to measure anything are chosen from: "everywhere" and rules for
a handful of positions, which usually win here, have nothing to measure. No rule can be right, so
over features and seeds both have mean 0, as long as what is reported has not mined or chosen.

Clarity's positions are made as always: prompts edited until the rule holds where it did not. The
model is not asked about them, it would answer for the feature as it is; in the shuffled world a
position's activation has nothing to do with its tokens, so an edited position keeps its own.

With one part for all three steps responsiveness is clearly above 0: the control can fail. Clarity
is then about 0 still, or a little below: its positions are those where the rule did not hold. Rules
that no edit can make hold (of roles or places) give it no number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pie_fast.interpret.contexts import Activity
from pie_fast.interpret.measures import separation
from pie_fast.interpret.rules.edits import edited
from pie_fast.interpret.rules.facts import Facts
from pie_fast.interpret.rules.parts import CHOOSING, MINING, REPORTING, positions_in
from pie_fast.interpret.rules.quality import clarity
from pie_fast.interpret.rules.rule import mine_rule
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Measure

#: positives, or negatives, below which a measure of the control is too noisy to say anything
AT_LEAST = 60


@dataclass(frozen=True, slots=True)
class Average:
    """A signed measure over features and seeds.

    Attributes:
        mean: None where no run had a value.
        standard_error: Of the mean, None below two runs.
        n_runs: Runs with a value.
        n_without: Runs without one: too few positives, or no rule.
    """

    mean: float | None
    standard_error: float | None
    n_runs: int
    n_without: int


def shuffled(activity: Activity, seed: int) -> Activity:
    """The activity with its values permuted over all counted positions.

    Args:
        activity: The feature's.
        seed: Of the permutation.
    """
    corpus = activity.corpus
    counted = np.flatnonzero(corpus.counted_mask)
    values = np.zeros(len(corpus.tokens), dtype=np.float32)
    values[activity.at] = activity.activation
    mixed = np.random.default_rng(seed).permutation(values[counted])
    at = counted[mixed != 0]
    return Activity.of(corpus, corpus.prompt[at], corpus.position[at], mixed[mixed != 0])


def shuffled_control(
    facts: Facts,
    activity: Activity,
    vocabulary: Vocabulary,
    *,
    promoted: Sequence[int] = (),
    n_concept: int = 2 * AT_LEAST,
    seed: int = 0,
    parts: tuple[int, int, int] = (MINING, CHOOSING, REPORTING),
) -> dict[str, Measure]:
    """Signed measures of a rule mined from shuffled activations; weights of prompts play no role.

    Args:
        facts: Of the activity's corpus, with the feature's own families if it has any.
        activity: The feature's, not shuffled.
        vocabulary: Texts of tokens, for edits.
        promoted: What ``facts.with_promoted`` was given.
        n_concept: Positions that are made to meet the rule, at most.
        seed: Of the permutation and of edits.
        parts: Those to mine, choose and measure on, the last always the reporting part; with one
            part for all three responsiveness is above 0.

    Returns:
        ``responsiveness_rule`` and ``clarity_rule``, without a value where there is no rule or
        fewer than 60 positives.
    """
    world = shuffled(activity, seed)
    rule = mine_rule(facts, world, at_least=AT_LEAST, parts=parts)
    if rule is None:
        nothing = Measure(None, why=f"no rule holds at {AT_LEAST} positions")
        return {"responsiveness_rule": nothing, "clarity_rule": nothing}
    scores = np.zeros(len(facts.corpus.tokens))
    scores[world.at] = world.activation
    there, holds = positions_in(world, parts[2]), rule.holds(facts)
    natural = scores[there]
    made = edited(rule, facts, world, vocabulary, n_concept, promoted=promoted, seed=seed)
    concept = scores[list(made.at)]
    return {
        "responsiveness_rule": _enough(separation(natural, holds[there])),
        "clarity_rule": _enough(clarity(concept, natural, np.ones(len(natural)))),
    }


def averages(runs: Iterable[Mapping[str, Measure]]) -> dict[str, Average]:
    """Means of the signed measures of many runs.

    Args:
        runs: What :func:`shuffled_control` returned, over features and seeds.
    """
    gathered: dict[str, list[float | None]] = {}
    for run in runs:
        for name, measured in run.items():
            gathered.setdefault(name, []).append(measured.signed)
    return {name: _average(values) for name, values in gathered.items()}


def _average(values: list[float | None]) -> Average:
    known = [value for value in values if value is not None]
    n = len(known)
    return Average(
        float(np.mean(known)) if n else None,
        float(np.std(known, ddof=1) / np.sqrt(n)) if n > 1 else None,
        n,
        len(values) - n,
    )


def _enough(measured: Measure) -> Measure:
    if measured.n_positive >= AT_LEAST:
        return measured
    few = f"{measured.n_positive} positives; the control needs {AT_LEAST}"
    return Measure(None, n_positive=measured.n_positive, n_negative=measured.n_negative, why=few)
