"""The method as it is written on paper: the oracle of the tests, the baseline of the benchmarks.

Plain Python, one feature and one prompt at a time, and sums by ``+=`` in order (newer Pythons
compensate ``sum()``). Nothing is cached, batched or shortened here, on purpose; what the paper
leaves open is decided as the table in ``docs/dropin.md`` says. :mod:`pie_fast.pie` has the same
functions, fast; this module may be slow but must be obvious.

1. **Prune**: score every active feature, keep the best M ("pool").
2. **Rerank**, for small budgets: greedily take the feature with the largest
   ``score[f] + (sum over selected s of synergy[f, s]) / max(number selected, 1)``.
3. **Interpret** the K that are left, and no others.
4. **Evaluate** on prompts that none of the above has seen.

A model's batch methods (``importances``, ``pool`` ...) are never used here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pie_fast.attributed import attribute_on, gradient_and_value, is_active, n_rows
from pie_fast.circuit import Circuit
from pie_fast.discovery import Discovery
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
from pie_fast.protocols import (
    BehaviorLike,
    Feature,
    ModelLike,
    SupportsDirections,
    SupportsInterpret,
)
from pie_fast.restriction import (
    answer_rows,
    as_circuit_or_model,
    check_restrictable,
    check_same_shape,
    restricted,
)


def compute_fap_score(feature: Feature, model: Any) -> float:
    """``(gradient * value).sum()``: the first-order effect of the feature, signed."""
    gradient, value = gradient_and_value(feature, model)
    total = 0.0
    for g, v in zip(gradient.ravel().tolist(), value.ravel().tolist(), strict=True):
        total += g * v
    return check_finite(total, feature)


def measure_behavioral_importance(
    model: ModelLike, features: Any, behaviors: Any, *, direction: str = "noising"
) -> float:
    """Activation patching of one feature or a set: signed, the mean over prompts."""
    check_choice("direction", direction)
    chosen, prompts = feature_set(features), prompts_of(behaviors)
    if direction == "noising":
        effect = model.importance(chosen, prompts)
    elif isinstance(model, SupportsDirections) and direction in model.directions:
        effect = model.importance(chosen, prompts, direction=direction)  # type: ignore[call-arg]
    else:
        # m(only S) - m(none) = I(all) - I(all without S), where I is the noising importance
        everything = set(model.clt_features)
        effect = float(model.importance(everything, prompts))
        effect -= float(model.importance(everything - chosen, prompts))
    return check_finite(float(effect), chosen)


def compute_synergy(
    f1: Feature,
    f2: Feature,
    behaviors: Any,
    model: ModelLike,
    *,
    synergy: str = "clipped",
    direction: str = "noising",
) -> float:
    """``max(joint - ind1 - ind2, 0)``; without the clipping for ``synergy="signed"``."""
    check_choice("synergy", synergy)
    if f1 == f2:
        raise PieFastError(f"synergy is defined for two features, not for {f1} and itself")
    f1, f2 = sorted((f1, f2))  # so that rounding does not depend on the order of arguments
    prompts = prompts_of(behaviors)
    joint = measure_behavioral_importance(model, {f1, f2}, prompts, direction=direction)
    ind1 = measure_behavioral_importance(model, {f1}, prompts, direction=direction)
    ind2 = measure_behavioral_importance(model, {f2}, prompts, direction=direction)
    signed = check_finite(joint - ind1 - ind2, {f1, f2})
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
    """The ``budget_k`` active features of largest score."""
    settings = Settings(importance=importance, rank_by=rank_by, direction=direction)
    budget, prompts = check_budget(budget_k), prompts_of(target_behavior)
    attribute_on(prompts, model)
    return set(_pool(model, prompts, budget, budget, settings)) if budget else set()


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
) -> set[Feature]:
    """The ``k`` features that greedy selection takes from ``features``."""
    settings = Settings(
        importance=importance, rank_by=rank_by, synergy=synergy, bonus=bonus, direction=direction
    )
    budget, prompts = check_budget(k), prompts_of(behaviors)
    pool = feature_set(features)
    check_enough(budget, len(pool), "features of the pool")
    attribute_on(prompts, model)
    return set(_rerank(pool, prompts, model, budget, settings))


def interpret_feature(feature: Feature, model: Any, context: Any) -> Interpretation:
    """What the feature does in ``context``; its float is its FAP score."""
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
    """How closely the circuit answers as the model does, on prompts selection never saw."""
    check_choice("kl_direction", kl_direction)
    check_choice("outputs", outputs)
    prompts = prompts_of(test_behaviors, "test_set")
    interpreted = as_circuit_or_model(interpreted_circuit)
    if isinstance(interpreted, Circuit):
        interpreted = restricted(original_circuit, interpreted)
    forward, backward, agreement = [], [], 0.0
    for context in prompts:
        full = answer_rows(original_circuit(context), outputs)
        part = answer_rows(interpreted(context), outputs)
        check_same_shape(full, part)
        to_circuit = to_model = same = 0.0
        for p, q in zip(full.tolist(), part.tolist(), strict=True):
            to_circuit += _kl(p, q)
            to_model += _kl(q, p)
            same += p.index(max(p)) == q.index(max(q))
        forward.append(to_circuit / len(full))
        backward.append(to_model / len(full))
        agreement += same / len(full)
    if kl_direction != "model||circuit":
        forward, backward = backward, forward
    total = 0.0
    for divergence in forward:
        total += divergence
    mean = total / len(forward)
    return {
        "behavioral_fidelity": 1.0 - min(mean, 1.0),
        "kl_divergences": forward,
        "mean_kl": mean,
        "kl_direction": kl_direction,
        "kl_divergences_reverse": backward,
        "top1_agreement": agreement / len(forward),
        "n_prompts": len(forward),
    }


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
    pool_factor: float = 4,
    strict_below: int = 100,
    kl_direction: str = "model||circuit",
    outputs: str = "probabilities",
    **switches: Any,
) -> Discovery:
    """Prune, rerank where the budget is strict, interpret what is left, evaluate it."""
    settings = Settings(
        importance=importance,
        rank_by=rank_by,
        synergy=synergy,
        bonus=bonus,
        direction=direction,
        method=method,
        pool_factor=pool_factor,
        strict_below=strict_below,
    )
    check_choice("kl_direction", kl_direction)
    check_choice("outputs", outputs)
    Circuit((), **switches)
    budget, prompts = check_budget(budget_k), prompts_of(target_behavior)
    check_restrictable(model, next(iter(prompts)))
    attribute_on(prompts, model)
    selector, regime = settings.regime(budget)
    size = settings.pool_size(budget) if selector == "fap-synergy" else budget
    kept = pool = _pool(model, prompts, budget, size, settings) if budget else []
    if selector == "fap-synergy":
        kept = _rerank(set(pool), prompts, model, budget, settings)
    interpretations = [interpret_feature(feature, model, prompts) for feature in kept]
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
        settings={**settings.to_dict(), **Circuit((), **switches).switches},
        pool_size=len(pool),
        n_interpreted=len(interpretations),
    )


def rank_score(feature: Feature, model: ModelLike, prompts: Any, settings: Settings) -> float:
    """The score that ranks a feature; all three forms are on the scale of the mean effect."""
    if settings.rank_by == "mean_abs":
        return _mean_absolute_effect(feature, model, prompts, settings)
    if settings.importance == "fap":
        mean = compute_fap_score(feature, model)
    else:
        mean = measure_behavioral_importance(
            model, {feature}, prompts, direction=settings.direction
        )
    return abs(mean) if settings.rank_by == "abs" else mean


def _mean_absolute_effect(
    feature: Feature, model: ModelLike, prompts: Any, settings: Settings
) -> float:
    total = 0.0
    if settings.importance == "patching":
        for prompt in prompts:
            total += abs(
                measure_behavioral_importance(
                    model, {feature}, [prompt], direction=settings.direction
                )
            )
        return check_finite(total / len(prompts), feature)
    gradient, value = gradient_and_value(feature, model)
    rows = n_rows(gradient.shape, len(prompts))
    for g_row, v_row in zip(
        gradient.reshape(rows, -1).tolist(), value.reshape(rows, -1).tolist(), strict=True
    ):
        share = 0.0  # of the mean effect; 1 / n_prompts is already in the gradient
        for g, v in zip(g_row, v_row, strict=True):
            share += g * v
        total += abs(share)
    return check_finite(total, feature)


def _pool(
    model: ModelLike, prompts: Any, budget: int, size: int, settings: Settings
) -> list[Feature]:
    """The ``size`` best active features, best first, ties to the smaller."""
    active = [feature for feature in sorted(set(model.clt_features)) if is_active(feature, model)]
    check_enough(budget, len(active), "active features")
    scores = {feature: rank_score(feature, model, prompts, settings) for feature in active}
    return sorted(active, key=lambda feature: -scores[feature])[:size]


def _rerank(
    features: set[Feature], prompts: Any, model: ModelLike, k: int, settings: Settings
) -> list[Feature]:
    """Greedy selection, in the order selected."""
    if k == 0:
        return []
    ordered = sorted(features)
    scores = {feature: rank_score(feature, model, prompts, settings) for feature in ordered}
    synergies = {}
    for i, f1 in enumerate(ordered):
        for f2 in ordered[i + 1 :]:
            synergies[f1, f2] = synergies[f2, f1] = compute_synergy(
                f1, f2, prompts, model, synergy=settings.synergy, direction=settings.direction
            )
    selected: list[Feature] = []
    while len(selected) < k:
        best, best_gain = None, -math.inf
        for feature in ordered:
            if feature in selected:
                continue
            extra = 0.0
            for other in selected:
                extra += synergies[feature, other]
            divisor = max(len(selected), 1) if settings.bonus == "mean" else 1
            gain = scores[feature] + extra / divisor + 0.0
            if gain > best_gain:  # strictly: ties stay with the smaller feature
                best, best_gain = feature, gain
        check_finite(best_gain, f"{best} with its synergies")
        selected.append(best)
    return selected


def _kl(p: list[float], q: list[float]) -> float:
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0.0:
            total += a * (math.log(a) - math.log(b)) if b > 0.0 else math.inf
    return max(total, 0.0)  # rounding may leave a tiny negative
