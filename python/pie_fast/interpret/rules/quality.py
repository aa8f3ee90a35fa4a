"""How good a rule is on the reporting part: FADE's and Delphi's measures with the rule as rater.

An instance is a counted position of a prompt that neither mined nor chose the rule, its label c
whether the rule holds there, its score the activation there (FADE, arXiv 2502.16994, has
sequences and a language model's ratings instead; hence the suffix of every name):

    responsiveness_rule  |2 AUROC - 1| of c = 1 against c = 0, signed beside
    purity_rule          average precision of c = 1; activations negated where signed is negative
    clarity_rule         |2 AUROC - 1| of positions made to express the concept against all natural
    detection_rule       prompts: is "the rule holds somewhere" right about "it fires somewhere"?
    fuzzing_rule         positions of prompts it fires in: is the rule right about which ones fire,
                         among them and as many random others of the same prompts?

The last two are Delphi's detection and fuzzing (arXiv 2410.13928) as balanced accuracy, (true
positive rate + true negative rate) / 2, so .5 is chance. A measure that is not defined is None
and says why. A rule fitted to activations is favoured by construction: never to be put beside
numbers of a language model, and to be read with :mod:`pie_fast.interpret.rules.control`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.errors import PieFastError
from pie_fast.interpret.contexts import Activity, Bools, Ints
from pie_fast.interpret.measures import measure, purity, separation, why_undefined
from pie_fast.interpret.rules.facts import Facts
from pie_fast.interpret.rules.parts import REPORTING, hash_of, positions_in
from pie_fast.interpret.rules.rule import Rule, weights_of_positions
from pie_fast.interpretation import Measure

Doubles = NDArray[np.float64]


def rule_measures(
    rule: Rule,
    facts: Facts,
    activity: Activity,
    *,
    concept: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> dict[str, Measure]:
    """All measures of a rule.

    Args:
        rule: Mined from this activity.
        facts: Of its corpus, with the feature's own families if the rule was mined with them.
        activity: The feature's.
        concept: ``[n]`` floats, activations at positions made to express the concept (edited or
            fresh prompts, :mod:`pie_fast.interpret.rules.edits`); without them no clarity.
        weights: ``[n_prompts]`` floats, as in mining; concept positions weigh 1.

    Returns:
        By name: ``responsiveness_rule``, ``purity_rule``, ``clarity_rule``, ``detection_rule``,
        ``fuzzing_rule``.

    Raises:
        PieFastError: Facts and activity are of different corpora, or weights do not fit them.
    """
    if facts.corpus is not activity.corpus:
        raise PieFastError("the facts and the activity are of different corpora")
    weight = weights_of_positions(activity, weights)
    at = np.flatnonzero(positions_in(activity, REPORTING))
    scores = np.zeros(len(weight))
    scores[activity.at] = activity.activation
    holds, fires = rule.holds(facts), activity.fires
    prompt = facts.corpus.prompt
    missing = "the rule holds nowhere", "the rule holds at every position"
    return {
        "responsiveness_rule": _plain(separation(scores[at], holds[at], weight[at]), *missing),
        "purity_rule": _plain(purity(scores[at], holds[at], weight[at]), *missing),
        "clarity_rule": clarity(concept, scores[at], weight[at]),
        "detection_rule": _detection(holds[at], fires[at], prompt[at], weight[at]),
        "fuzzing_rule": _fuzzing(holds[at], fires[at], prompt[at], at, weight[at]),
    }


def clarity(concept: ArrayLike | None, natural: Doubles, weights: Doubles) -> Measure:
    """``|2 AUROC - 1|`` of activations where the concept was made to be, against natural ones.

    Args:
        concept: ``[n]`` floats, or None where none were made.
        natural: ``[m]`` float64, activations at natural positions, with the concept or without.
        weights: ``[m]`` float64.
    """
    if concept is None:
        return Measure(None, n_negative=len(natural), why="no prompt was made to meet the rule")
    made = np.asarray(concept, dtype=np.float64)
    found = separation(
        np.concatenate([made, natural]),
        np.arange(len(made) + len(natural)) < len(made),
        np.concatenate([np.ones(len(made)), weights]),
    )
    return _plain(found, "no prompt was made to meet the rule", "there are no natural positions")


def _detection(holds: Bools, fires: Bools, prompt: Ints, weight: Doubles) -> Measure:
    """Balanced accuracy over prompts."""
    _, first, of = np.unique(prompt, return_index=True, return_inverse=True)
    said, true = (np.bincount(of, x, len(first)) > 0 for x in (holds, fires))
    found = _balanced(said, true, weight[first])
    return _plain(found, "the feature fires in no prompt", "the feature fires in every prompt")


def _fuzzing(holds: Bools, fires: Bools, prompt: Ints, at: Ints, weight: Doubles) -> Measure:
    """Balanced accuracy over the firing positions and as many silent ones of the same prompts."""
    chosen = [np.flatnonzero(fires)]
    silent = np.flatnonzero(~fires)
    silent = silent[np.argsort(hash_of(at[silent]), kind="stable")]
    silent = silent[np.argsort(prompt[silent], kind="stable")]
    prompts, counts = np.unique(prompt[fires], return_counts=True)
    begin, end = (np.searchsorted(prompt[silent], prompts, side) for side in ("left", "right"))
    for first, last, n in zip(begin.tolist(), end.tolist(), counts.tolist(), strict=True):
        chosen.append(silent[first : min(last, first + n)])
    among = np.concatenate(chosen)
    return _plain(
        _balanced(holds[among], fires[among], weight[among]),
        "the feature fires nowhere",
        "the feature fires at every position of the prompts it fires in",
    )


def _plain(measured: Measure, no_positive: str, no_negative: str) -> Measure:
    """The measure with a reason that says what is missing, where it is instances of a class."""
    if measured.value is not None or min(measured.n_positive, measured.n_negative) > 0:
        return measured
    return replace(measured, why=no_positive if measured.n_positive == 0 else no_negative)


def _balanced(said: Bools, true: Bools, weight: Doubles) -> Measure:
    why = why_undefined(said, true, weight)
    if why is not None:
        return measure(None, true, why=why)
    found = float(weight[said & true].sum() / weight[true].sum())
    left = float(weight[~said & ~true].sum() / weight[~true].sum())
    return measure((found + left) / 2, true)
