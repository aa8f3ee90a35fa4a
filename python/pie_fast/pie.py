"""The drop-in functions: PIE on any model that meets :mod:`pie_fast.protocols`, fast.

Names, argument order and result keys are those of the paper's code; options follow as keywords.
:mod:`pie_fast.reference` has the same functions as plain loops and selects the same features.
What is faster here: singles are measured once and not once per pair, batch methods of the model
are used where it has them, scores are vectorised and the greedy selection is native.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pie_fast.attributed import attribute_on, gradient_and_value
from pie_fast.circuit import Circuit
from pie_fast.discovery import Discovery
from pie_fast.divergence import kl, summary, top1_agreement
from pie_fast.errors import PieFastError
from pie_fast.interpretation import Interpretation, plain_interpretation
from pie_fast.options import (
    Settings,
    check_budget,
    check_choice,
    check_enough,
    check_finite,
    feature_set,
    prompts_of,
)
from pie_fast.patching import Patching
from pie_fast.protocols import (
    BehaviorLike,
    Feature,
    ModelLike,
    SupportsEvaluate,
    SupportsInterpret,
)
from pie_fast.ranking import accumulate, pool_of, rerank
from pie_fast.restriction import (
    answer_rows,
    as_circuit_or_model,
    check_restrictable,
    check_same_shape,
    restricted,
)


def compute_fap_score(feature: Feature, model: Any) -> float:
    """The feature's first-order effect on the metric, signed: ``(gradient * value).sum()``.

    Args:
        feature: A feature after a backward, or one that ``model.attributed`` knows.
        model: The feature's model.

    Raises:
        PieFastError: There is no gradient or value, their shapes differ, or the score is not
            finite.
    """
    gradient, value = gradient_and_value(feature, model)
    with np.errstate(all="ignore"):
        products = (gradient * value).ravel()
    return check_finite(float(accumulate(products)), feature)


def measure_behavioral_importance(
    model: ModelLike, features: Any, behaviors: Any, *, direction: str = "noising"
) -> float:
    """Activation patching of one feature or a set: signed, the mean over prompts.

    Args:
        model: The model to patch.
        features: One feature, or any collection of features.
        behaviors: Prompts.
        direction: ``"noising"``, m(all) - m(all without them), or ``"denoising"``,
            m(only them) - m(none).

    Raises:
        BehaviorError: There are no prompts.
        PieFastError: The importance is not finite.
    """
    check_choice("direction", direction)
    chosen = feature_set(features)
    return Patching(model, prompts_of(behaviors), direction).of_set(chosen)


def compute_synergy(
    f1: Feature,
    f2: Feature,
    behaviors: Any,
    model: ModelLike,
    *,
    synergy: str = "clipped",
    direction: str = "noising",
) -> float:
    """What two features do together beyond the sum of what each does alone.

    A positive value means backups (OR) in noising and complements (AND) in denoising.

    Args:
        f1: A feature.
        f2: Another feature.
        behaviors: Prompts.
        model: The model to patch.
        synergy: ``"clipped"``: max(I(f1, f2) - I(f1) - I(f2), 0); ``"signed"``: unclipped.
        direction: As in :func:`measure_behavioral_importance`.

    Raises:
        BehaviorError: There are no prompts.
        PieFastError: The features are the same, or an importance is not finite.
    """
    check_choice("synergy", synergy)
    check_choice("direction", direction)
    if f1 == f2:
        raise PieFastError(f"synergy is defined for two features, not for {f1} and itself")
    f1, f2 = sorted((f1, f2))  # so that rounding does not depend on the order of arguments
    patching = Patching(model, prompts_of(behaviors), direction)
    signed = float(patching.pair_synergies([f1, f2])[0])
    return max(signed, 0.0) if synergy == "clipped" else signed


def prune_features(
    model: ModelLike,
    target_behavior: BehaviorLike,
    budget_k: int,
    *,
    importance: str = "fap",
    rank_by: str = "mean_abs",
    direction: str = "noising",
) -> set[Feature]:
    """The ``budget_k`` active features of largest score, ties to the smaller feature.

    Args:
        model: The model.
        target_behavior: Only its ``behaviors`` are looked at.
        budget_k: How many to keep; 0 keeps none.
        importance: ``"fap"`` or ``"patching"``.
        rank_by: ``"mean_abs"``, ``"abs"`` or ``"signed"``.
        direction: Direction of the patching.

    Raises:
        BudgetError: The budget is negative or above the number of active features.
        BehaviorError: There are no prompts.
        PieFastError: An option is unknown or a score is not finite.
    """
    settings = Settings(importance=importance, rank_by=rank_by, direction=direction)
    budget, prompts = check_budget(budget_k), prompts_of(target_behavior)
    attribute_on(prompts, model)
    ranking = pool_of(Patching(model, prompts, direction), budget, budget, settings)
    return set(ranking)


def fap_synergy_reranking(
    features: Iterable[Feature],
    behaviors: Any,
    model: ModelLike,
    k: int,
    *,
    importance: str = "fap",
    rank_by: str = "mean_abs",
    synergy: str = "clipped",
    bonus: str = "mean",
    direction: str = "noising",
    estimator: str = "exact",
) -> set[Feature]:
    """The ``k`` of ``features`` that the greedy rule selects.

    While fewer than k are selected, the rule takes the feature with the largest ``score +
    (sum of its synergies with those selected) / max(number selected, 1)``, ties to the smaller.

    Args:
        features: The pool.
        behaviors: Prompts.
        model: The model to score and patch.
        k: How many to keep; 0 keeps none.
        importance: ``"fap"`` or ``"patching"``.
        rank_by: ``"mean_abs"``, ``"abs"`` or ``"signed"``.
        synergy: ``"clipped"`` or ``"signed"``.
        bonus: ``"mean"`` divides as above, ``"sum"`` does not divide.
        direction: ``"noising"`` or ``"denoising"``.
        estimator: ``"exact"``, or another that the model's ``synergies`` offers.

    Raises:
        BudgetError: ``k`` is negative or above the size of the pool.
        BehaviorError: There are no prompts.
        PieFastError: An option is unknown or a number is not finite.
    """
    settings = Settings(
        importance=importance,
        rank_by=rank_by,
        synergy=synergy,
        bonus=bonus,
        direction=direction,
        estimator=estimator,
    )
    budget, prompts = check_budget(k), prompts_of(behaviors)
    pool = feature_set(features)
    check_enough(budget, len(pool), "features of the pool")
    attribute_on(prompts, model)
    return set(rerank(pool, Patching(model, prompts, direction), budget, settings))


def interpret_feature(feature: Feature, model: Any, context: Any) -> Interpretation:
    """What one feature does; ``float()`` of it is the feature's FAP score.

    Args:
        feature: The feature.
        model: Its model; one with ``interpret`` does the work itself.
        context: A prompt, or a collection of prompts, to look at.

    Raises:
        PieFastError: The FAP score cannot be computed; see :func:`compute_fap_score`.
    """
    if isinstance(model, SupportsInterpret):
        return model.interpret([feature], context)[0]
    return plain_interpretation(feature, compute_fap_score(feature, model), context)


def evaluate_interpretation(
    original_circuit: Any,
    interpreted_circuit: Any,
    test_behaviors: Any,
    *,
    kl_direction: str = "model||circuit",
    outputs: str = "probabilities",
) -> dict[str, Any]:
    """How closely a circuit answers as the model does.

    Args:
        original_circuit: The model: called on a prompt it answers with probabilities.
        interpreted_circuit: A :class:`Circuit` (or bare collection of features) of that model,
            or another model.
        test_behaviors: Prompts that selection has not seen.
        kl_direction: ``"model||circuit"`` (the field's) or ``"circuit||model"`` (the paper's
            ``F.kl_div(original.log(), interpreted)``).
        outputs: What models answer with: ``"probabilities"`` or ``"logits"``.

    Returns:
        ``behavioral_fidelity``, 1 - min(mean KL, 1); ``kl_divergences``, one per prompt;
        ``mean_kl``; ``kl_direction``; ``kl_divergences_reverse``, the other direction;
        ``top1_agreement``; ``n_prompts``; and what the model's own ``evaluate`` adds.

    Raises:
        BehaviorError: There are no prompts.
        PieFastError: An answer is not what ``outputs`` says, or the circuit cannot be applied.
    """
    check_choice("kl_direction", kl_direction)
    check_choice("outputs", outputs)
    prompts = prompts_of(test_behaviors, "test_set")
    interpreted = as_circuit_or_model(interpreted_circuit)
    if isinstance(interpreted, Circuit):
        if isinstance(original_circuit, SupportsEvaluate):
            return dict(original_circuit.evaluate(interpreted, prompts, kl_direction=kl_direction))
        interpreted = restricted(original_circuit, interpreted)
    forward, reverse, agreements = [], [], []
    for context in prompts:
        full = answer_rows(original_circuit(context), outputs)
        part = answer_rows(interpreted(context), outputs)
        check_same_shape(full, part)
        forward.append(kl(full, part))
        reverse.append(kl(part, full))
        agreements.append(top1_agreement(full, part))
    return summary(forward, reverse, agreements, kl_direction)


def pie_circuit_discovery(
    model: ModelLike,
    target_behavior: BehaviorLike,
    budget_k: int,
    *,
    method: str = "paper",
    importance: str = "fap",
    rank_by: str = "mean_abs",
    synergy: str = "clipped",
    bonus: str = "mean",
    direction: str = "noising",
    estimator: str = "exact",
    pool_factor: float = 4,
    strict_below: int = 100,
    kl_direction: str = "model||circuit",
    outputs: str = "probabilities",
    **switches: Any,
) -> Discovery:
    """Prune to a pool, rerank it, interpret the K that are left, evaluate them.

    Args:
        model: The model.
        target_behavior: ``behaviors`` to select and interpret by; ``test_set`` only to evaluate.
        budget_k: K; 0 evaluates the empty circuit.
        method: ``"paper"``: synergy reranking for K below ``strict_below``, plain top-k from
            there on; ``"fap-synergy"`` or ``"fap"`` for any K.
        importance: As in :func:`fap_synergy_reranking`, like the next five.
        rank_by: The same.
        synergy: The same.
        bonus: The same.
        direction: The same.
        estimator: The same.
        pool_factor: The pool holds ``max(pool_factor * K, 200)`` features, or all the active
            ones; with 1 it holds K, and reranking changes nothing.
        strict_below: See ``method``.
        kl_direction: As in :func:`evaluate_interpretation`.
        outputs: The same.
        **switches: ``baseline``, ``error``, ``attention``, ``activations`` of the
            :class:`Circuit` that is evaluated.

    Returns:
        ``{"features", "interpretations", "evaluation"}``, with the selector that ran and all
        settings as attributes.

    Raises:
        BudgetError: The budget is negative or above the number of active features.
        BehaviorError: There are no prompts.
        PieFastError: An option is unknown, a number is not finite, or circuits cannot be
            applied to the model.
    """
    settings = Settings(
        importance=importance,
        rank_by=rank_by,
        synergy=synergy,
        bonus=bonus,
        direction=direction,
        estimator=estimator,
        method=method,
        pool_factor=pool_factor,
        strict_below=strict_below,
    )
    check_choice("kl_direction", kl_direction)
    check_choice("outputs", outputs)
    circuit = Circuit((), **switches)
    budget, prompts = check_budget(budget_k), prompts_of(target_behavior)
    check_restrictable(model, next(iter(prompts)))
    attribute_on(prompts, model)
    selector, regime = settings.regime(budget)
    size = settings.pool_size(budget) if selector == "fap-synergy" else budget
    patching = Patching(model, prompts, direction)
    pool = pool_of(patching, budget, size, settings)
    kept = list(pool)
    if selector == "fap-synergy":
        kept = rerank(set(pool), patching, budget, settings, known=pool)
    interpretations = _interpret(kept, model, prompts)
    evaluation = evaluate_interpretation(
        model,
        Circuit(kept, **switches),
        target_behavior.test_set,
        kl_direction=kl_direction,
        outputs=outputs,
    )
    return Discovery(
        set(kept),
        interpretations,
        evaluation,
        selector=selector,
        regime=regime,
        settings={**settings.to_dict(), **circuit.switches},
        scores=[pool[feature] for feature in kept],
        pool_size=len(pool),
        n_interpreted=len(interpretations),
    )


def _interpret(kept: Sequence[Feature], model: Any, prompts: Any) -> list[Interpretation]:
    """One interpretation for each feature kept; no other feature is ever interpreted."""
    if kept and isinstance(model, SupportsInterpret):
        interpretations = list(model.interpret(kept, prompts))
        if len(interpretations) != len(kept):
            raise PieFastError(
                f"the model gave {len(interpretations)} interpretations for {len(kept)} features"
            )
        return interpretations
    return [interpret_feature(feature, model, prompts) for feature in kept]
