"""The fast functions against the literal ones, on toys from ``toy_models``.

Scores, importances and synergies agree to the last bit (the additions run in one order), so
selections are compared exactly, ties included. Divergences go through numpy's logarithm on one
side and the C library's on the other: they agree to 1e-12 absolute for probabilities above 1e-6.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import Behavior, Feature, Toy, toys, wild

import pie_fast
from pie_fast import options, pie, reference
from pie_fast.circuit import Circuit
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.protocols import BehaviorLike, FeatureLike, ModelLike

IMPLEMENTATIONS = pytest.mark.parametrize("functions", [pie, reference], ids=["fast", "reference"])


def choices(*names):
    return st.fixed_dictionaries({name: st.sampled_from(options.CHOICES[name]) for name in names})


def outcome(function, *args, **kwargs):
    """The value, or the kind of error."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error)


@given(toys(), st.data(), choices("importance", "rank_by", "direction"))
@settings(max_examples=200, deadline=None)
def test_prune_agrees(case, data, chosen):
    model, behavior = case
    k = data.draw(st.integers(0, len(model.clt_features) + 1))
    fast = outcome(pie.prune_features, model, behavior, k, **chosen)
    literal = outcome(reference.prune_features, model, behavior, k, **chosen)
    assert fast == literal
    assert fast is BudgetError or len(fast) == k


@given(toys(), st.data(), choices("importance", "rank_by", "synergy", "bonus", "direction"))
@settings(max_examples=300, deadline=None)
def test_reranking_agrees(case, data, chosen):
    model, behavior = case
    k = data.draw(st.integers(0, len(model.clt_features)))
    args = model.clt_features, behavior.behaviors, model, k
    fast = pie.fap_synergy_reranking(*args, **chosen)
    assert fast == reference.fap_synergy_reranking(*args, **chosen)
    assert len(fast) == k


@given(
    toys(numbers=wild),
    st.data(),
    choices("importance", "rank_by", "synergy", "bonus", "direction"),
)
@settings(max_examples=300, deadline=None)
def test_errors_agree_in_kind_on_wild_numbers(case, data, chosen):
    model, behavior = case
    k = data.draw(st.integers(-1, len(model.clt_features) + 1))
    args = model.clt_features, behavior.behaviors, model, k
    fast = outcome(pie.fap_synergy_reranking, *args, **chosen)
    assert fast == outcome(reference.fap_synergy_reranking, *args, **chosen)
    assert isinstance(fast, set) or issubclass(fast, PieFastError)


@given(toys(min_features=2), st.data(), choices("synergy", "direction"))
@settings(max_examples=200, deadline=None)
def test_synergy_and_importance_agree_to_the_bit(case, data, chosen):
    model, behavior = case
    f, g = data.draw(st.permutations(model.clt_features))[:2]
    args = behavior.behaviors, model
    fast = pie.compute_synergy(f, g, *args, **chosen)
    assert fast == reference.compute_synergy(f, g, *args, **chosen)
    assert fast == pie.compute_synergy(g, f, *args, **chosen)
    assert fast >= 0 or chosen["synergy"] == "signed"
    for features in (f, {f}, {f, g}, [f, g], set()):
        one = pie.measure_behavioral_importance(
            model, features, behavior.behaviors, direction=chosen["direction"]
        )
        assert one == reference.measure_behavioral_importance(
            model, features, behavior.behaviors, direction=chosen["direction"]
        )


@given(toys())
@settings(max_examples=200, deadline=None)
def test_fap_scores_agree_to_the_bit(case):
    model, behavior = case
    for feature in model.clt_features:
        fast = pie.compute_fap_score(feature, model)
        assert fast == reference.compute_fap_score(feature, model)
        assert fast == pytest.approx((feature.gradient * feature.value).sum(), abs=1e-12)
        interpretation = pie.interpret_feature(feature, model, behavior.behaviors)
        assert float(interpretation) == fast
        assert interpretation == reference.interpret_feature(feature, model, behavior.behaviors)


@given(
    toys(),
    st.data(),
    choices("method", "importance", "rank_by", "synergy", "bonus", "direction", "kl_direction"),
    st.sampled_from([1, 1.5, 4]),
    st.sampled_from([0, 2, 100]),
)
@settings(max_examples=200, deadline=None)
def test_discovery_agrees(case, data, chosen, pool_factor, strict_below):
    model, behavior = case
    k = data.draw(st.integers(0, len(model.clt_features) + 1))
    chosen |= {"pool_factor": pool_factor, "strict_below": strict_below}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "SMALLEST_POOL", 2)  # else every toy's pool is all of it
        fast = outcome(pie.pie_circuit_discovery, model, behavior, k, **chosen)
        literal = outcome(reference.pie_circuit_discovery, model, behavior, k, **chosen)
    if isinstance(fast, type):
        assert fast is literal is BudgetError
        return
    assert fast["features"] == literal["features"]
    assert fast["interpretations"] == literal["interpretations"]
    assert len(fast["features"]) == fast.n_interpreted == k
    attributes = ("selector", "regime", "pool_size", "n_interpreted")
    assert [getattr(fast, a) for a in attributes] == [getattr(literal, a) for a in attributes]
    assert {**literal.settings, "estimator": "exact"} == fast.settings
    ours, theirs = fast["evaluation"], literal["evaluation"]
    assert set(ours) == set(theirs)
    for key in set(ours) - {"kl_direction"}:
        assert ours[key] == pytest.approx(theirs[key], abs=1e-12), key


probabilities = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=3, max_size=3).filter(
    lambda weights: sum(weights) > 1e-3
)


@given(
    st.lists(st.tuples(probabilities, probabilities), min_size=1, max_size=4),
    choices("kl_direction"),
)
@settings(max_examples=300, deadline=None)
def test_evaluations_agree_on_any_two_models(rows, chosen):
    full = [np.array(p) / sum(p) for p, _ in rows]
    part = [np.array(q) / sum(q) for _, q in rows]
    args = full.__getitem__, part.__getitem__, range(len(rows))
    fast = pie.evaluate_interpretation(*args, **chosen)
    literal = reference.evaluate_interpretation(*args, **chosen)
    for key in set(fast) - {"kl_direction"}:
        # q down to 1e-308: the logarithms reach 700, so the bound is relative to those
        assert fast[key] == pytest.approx(literal[key], abs=1e-12, rel=1e-12), key
    assert len(fast["kl_divergences"]) == len(rows)
    assert 0 <= fast["behavioral_fidelity"] <= 1


def gate(kind):
    """Two features that count only together (AND), or either of which is enough (OR)."""
    weight = 1.0 if kind == "and" else -1.0
    alone = 0.0 if kind == "and" else 1.0
    one = np.ones(1)
    features = [Feature(0, i, one, one) for i in range(3)]
    return Toy(features, [[alone, alone, 0.25]], {(0, 1): weight})


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("kind", "direction", "expected"),
    [
        ("and", "denoising", 1.0),
        ("and", "noising", -1.0),
        ("or", "denoising", -1.0),
        ("or", "noising", 1.0),
    ],
)
def test_the_sign_of_synergy(functions, kind, direction, expected):
    model = gate(kind)
    a, b, c = model.clt_features
    args = [0], model
    signed = functions.compute_synergy(a, b, *args, synergy="signed", direction=direction)
    assert signed == expected
    assert functions.compute_synergy(a, b, *args, direction=direction) == max(expected, 0)
    assert functions.compute_synergy(a, c, *args, synergy="signed", direction=direction) == 0


@IMPLEMENTATIONS
def test_synergy_changes_what_is_selected(functions):
    half, one = np.array([0.5]), np.ones(1)
    weights = [one, half, half * 1.2]
    features = [Feature(0, i, w, one) for i, w in enumerate(weights)]
    model = Toy(features, [[0.0, 0.0, 0.0]], {(0, 1): 1.0})  # 0 AND 1
    rerank = functions.fap_synergy_reranking
    assert {f.index for f in rerank(features, [0], model, 2)} == {0, 2}
    assert {f.index for f in rerank(features, [0], model, 2, direction="denoising")} == {0, 1}


BAD = {
    "negative budget": (BudgetError, {"k": -1}),
    "budget above the pool": (BudgetError, {"k": 5}),
    "a budget that is no integer": (TypeError, {"k": 1.5}),
    "no prompts": (BehaviorError, {"prompts": []}),
    "prompts that are no collection": (BehaviorError, {"prompts": 3}),
    "NaN importance": (PieFastError, {"single": math.nan}),
    "infinite importance": (PieFastError, {"single": math.inf}),
    "NaN gradient": (PieFastError, {"gradient": math.nan}),
    "unequal shapes": (PieFastError, {"value": np.ones(2)}),
    "unknown rank_by": (PieFastError, {"rank_by": "best"}),
    "unknown direction": (PieFastError, {"direction": "up"}),
}


@IMPLEMENTATIONS
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_kind(functions, name):
    kind, bad = BAD[name]
    value = bad.get("value", np.ones(1))
    features = [Feature(0, i, np.array([bad.get("gradient", 1.0)]), value) for i in range(4)]
    model = Toy(features, [[bad.get("single", 1.0)] * 4], {})
    behavior = Behavior(bad.get("prompts", [0]), [0])
    chosen = {key: bad[key] for key in ("rank_by", "direction") if key in bad}
    k = bad.get("k", 2)
    importance = "fap" if {"gradient", "value"} & set(bad) else "patching"
    calls = [
        lambda: functions.fap_synergy_reranking(features, behavior.behaviors, model, k, **chosen),
        lambda: functions.pie_circuit_discovery(model, behavior, k, **chosen),
        lambda: functions.prune_features(model, behavior, k, importance=importance, **chosen),
    ]
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind


@IMPLEMENTATIONS
def test_too_few_active_features_says_how_many(functions):
    one = np.ones(1)
    features = [Feature(0, i, one, one * (i < 3)) for i in range(6)]
    model = Toy(features, [[1.0] * 6], {})
    assert len(functions.prune_features(model, Behavior([0], [0]), 3)) == 3
    with pytest.raises(BudgetError, match="budget 4 exceeds the 3 active features"):
        functions.pie_circuit_discovery(model, Behavior([0], [0]), 4)


class Watched(Behavior):
    """Notes when the held-out prompts are asked for."""

    def __init__(self, log):
        self.behaviors, self._log = [0], log

    @property
    def test_set(self):
        self._log.append("test_set")
        return [1]


class Interpreting(Toy):
    def importance(self, features, behaviors):
        self.log.append("select")
        return super().importance(features, behaviors)

    def interpret(self, features, behaviors):
        assert list(behaviors) == [0]
        self.log.extend(["interpret"] * len(features))
        return [pie_fast.Interpretation(f, reference.compute_fap_score(f, self)) for f in features]


@IMPLEMENTATIONS
def test_only_the_kept_are_interpreted_and_evaluation_comes_last(functions):
    one = np.ones(1)
    features = [Feature(0, i, one * (i + 1), one) for i in range(12)]
    model = Interpreting(features, [[1.0] * 12, [1.0] * 12], {(0, 1): 1.0})
    model.log = log = []
    result = functions.pie_circuit_discovery(model, Watched(log), 5)
    assert set(result) == {"features", "interpretations", "evaluation"}
    assert log.count("interpret") == result.n_interpreted == 5
    assert log[-6:] == ["interpret"] * 5 + ["test_set"]
    assert set(log[:-6]) == {"select"}
    assert {i.feature for i in result["interpretations"]} == result["features"]


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("k", "selector", "regime", "pool_size"),
    [(9, "fap-synergy", "strict", 30), (10, "fap", "moderate", 10), (20, "fap", "relaxed", 20)],
)
def test_the_papers_regimes(functions, k, selector, regime, pool_size):
    one = np.ones(1)
    features = [Feature(0, i, one * (i + 1), one) for i in range(30)]
    model = Toy(features, [[1.0] * 30], {})
    result = functions.pie_circuit_discovery(model, Behavior([0], [0]), k, strict_below=10)
    assert (result.selector, result.regime, result.pool_size) == (selector, regime, pool_size)
    assert result.settings["method"] == "paper" and result.settings["direction"] == "noising"


def test_singles_are_measured_once():
    one = np.ones(1)
    features = [Feature(0, i, one, one) for i in range(10)]
    fast, literal = (Toy(features, [[1.0] * 10], {}) for _ in range(2))
    pie.fap_synergy_reranking(features, [0], fast, 5)
    reference.fap_synergy_reranking(features, [0], literal, 5)
    assert fast.calls["importance"] == 10 + 45
    assert literal.calls["importance"] == 3 * 45


@IMPLEMENTATIONS
def test_a_model_that_ignores_its_features_is_refused(functions):
    class Deaf(Toy):
        def __call__(self, prompt):
            return np.array([0.5, 0.5])

    one = np.ones(1)
    model = Deaf([Feature(0, i, one, one) for i in range(4)], [[1.0] * 4], {})
    with pytest.raises(PieFastError, match="restricted_to"):
        functions.pie_circuit_discovery(model, Behavior([0], [0]), 2)
    assert not model.calls, "it was refused before the costly part"
    with pytest.raises(PieFastError, match="baseline 'zero' needs a model with restricted_to"):
        functions.evaluate_interpretation(model, Circuit(model.clt_features, "zero"), [0])


def test_the_toy_meets_the_protocols():
    one = np.ones(1)
    feature = Feature(0, 0, one, one)
    assert isinstance(feature, FeatureLike)
    assert isinstance(Toy([feature], [[1.0]], {}), ModelLike)
    assert isinstance(Behavior([0], [0]), BehaviorLike)
    assert not isinstance(object(), ModelLike)
