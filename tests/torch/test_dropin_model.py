"""The eight drop-in functions on our own model: as the reference does them, and as defined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pie_fast import options, pie, reference
from pie_fast.behaviors import Behavior, Prompt
from pie_fast.circuit import Circuit
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.evaluate import evaluate_circuit
from pie_fast.model import Switches
from pie_fast.replacement_model import ReplacementModel
from pie_fast.types import FeatureId
from torch_prompts import random_prompts

#: float32 logits of size 1 to 10; batches of other shapes add in another order
CLOSE = 2e-5

SELECTION, HELD_OUT = random_prompts(3), random_prompts(2, seed=8)


@pytest.fixture
def model(tiny_model: ReplacementModel) -> ReplacementModel:
    """A model that has attributed nothing yet."""
    return ReplacementModel(tiny_model.host, tiny_model.clt)


@pytest.fixture
def twin(tiny_model: ReplacementModel) -> ReplacementModel:
    """Another one for the reference, so that neither profits from what the other left behind."""
    return ReplacementModel(tiny_model.host, tiny_model.clt)


@pytest.fixture
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of 8: the reference takes 84 patchings for one, and 60,000 for 200 features."""
    monkeypatch.setattr(options, "SMALLEST_POOL", 8)


def behavior(metric: str = "logit-diff", *, paired: bool = True) -> Behavior:
    splits = [
        tuple(p if paired else replace(p, counterfactual=None) for p in split)
        for split in (SELECTION, HELD_OUT)
    ]
    return Behavior("random", *splits, metric=metric)


def some_features(model: ReplacementModel, n: int) -> list[FeatureId]:
    return sorted(pie.prune_features(model, behavior(), n))


def test_fap_scores_are_the_mean_of_the_attributions(model: ReplacementModel) -> None:
    prompts = behavior().behaviors
    entries = model.attribute(prompts)
    features = [FeatureId.from_global(g, model.clt.n_features) for g in entries.active.tolist()]
    means = model.fap_scores(features, prompts).mean(1)
    assert np.abs(means).max() > 0.01
    for feature, mean in zip(features, means.tolist(), strict=True):
        assert pie.compute_fap_score(feature, model) == pytest.approx(mean, abs=1e-9)
        assert reference.compute_fap_score(feature, model) == pytest.approx(mean, abs=1e-9)
        assert float(pie.interpret_feature(feature, model, prompts)) == pytest.approx(
            mean, abs=1e-9
        )
    alone = [float(model.attribute([p]).effect.sum(dtype=np.float64)) for p in prompts]
    assert np.mean(alone) == pytest.approx(means.sum(), abs=CLOSE)


@pytest.mark.parametrize("functions", [pie, reference], ids=["fast", "reference"])
def test_scores_need_a_backward_first(functions: Any, model: ReplacementModel) -> None:
    with pytest.raises(PieFastError, match=r"call model.attribute\(prompts\) first"):
        functions.compute_fap_score(FeatureId(0, 0), model)


def test_looking_at_a_prompt_changes_nothing(model: ReplacementModel) -> None:
    b = behavior("logprob", paired=False)
    model.attribute(b.behaviors)
    feature = some_features(model, 1)[0]
    model.attribute(b.behaviors)
    score = pie.compute_fap_score(feature, model)
    circuit = Circuit([feature], "mean")
    before = pie.evaluate_interpretation(model, circuit, b.test_set)
    seen = pie.interpret_feature(feature, model, b.held_out[0])
    assert float(seen) != pytest.approx(score, rel=1e-3)
    assert len(seen.contexts) == 1
    assert pie.compute_fap_score(feature, model) == score
    assert pie.evaluate_interpretation(model, circuit, b.test_set) == before


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_importance_and_synergy(
    model: ReplacementModel, twin: ReplacementModel, direction: str
) -> None:
    prompts = behavior().behaviors
    features = some_features(model, 4)
    sets = [features[0], features[:1], set(features[1:3]), features]
    found = [
        pie.measure_behavioral_importance(model, s, prompts, direction=direction) for s in sets
    ]
    literal = [
        reference.measure_behavioral_importance(twin, s, prompts, direction=direction) for s in sets
    ]
    assert found == pytest.approx(literal, abs=CLOSE)
    assert found[0] == pytest.approx(found[1], abs=CLOSE)
    assert max(map(abs, found)) > 0.1
    for synergy in ("signed", "clipped"):
        options = {"synergy": synergy, "direction": direction}
        pairs = [(features[0], features[1]), (features[3], features[2])]
        for one, other in pairs:
            fast = pie.compute_synergy(one, other, prompts, model, **options)
            assert fast == pytest.approx(
                reference.compute_synergy(one, other, prompts, twin, **options), abs=CLOSE
            )
            assert fast == pytest.approx(
                pie.compute_synergy(other, one, prompts, model, **options), abs=CLOSE
            )


@pytest.mark.parametrize("metric", ["logit-diff", "logprob"])
@pytest.mark.parametrize(
    ("importance", "rank_by", "direction"),
    [
        ("fap", "mean_abs", "noising"),
        ("fap", "abs", "noising"),
        ("fap", "signed", "noising"),
        ("patching", "mean_abs", "noising"),
        ("patching", "signed", "denoising"),
    ],
)
def test_pruning(
    model: ReplacementModel,
    twin: ReplacementModel,
    metric: str,
    importance: str,
    rank_by: str,
    direction: str,
) -> None:
    chosen = {"importance": importance, "rank_by": rank_by, "direction": direction}
    if importance == "patching":
        # The reference patches every active feature on every prompt: leave it only a few.
        for one in (model, twin):
            one.__class__ = FewFeatures
    fast = pie.prune_features(model, behavior(metric), 6, **chosen)
    assert fast == reference.prune_features(twin, behavior(metric), 6, **chosen)
    assert len(fast) == 6


class FewFeatures(ReplacementModel):
    """Offers 12 features only, and leaves the ranking to the functions."""

    pool = None  # type: ignore[assignment]

    @property
    def clt_features(self) -> Any:
        return [FeatureId(i % 3, 5 * i) for i in range(9)]


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"synergy": "signed", "bonus": "sum"},
        {"synergy": "signed", "bonus": "sum", "direction": "denoising"},
        {"importance": "patching", "rank_by": "signed", "synergy": "signed"},
        {"rank_by": "abs", "bonus": "sum", "direction": "denoising"},
    ],
)
def test_reranking(model: ReplacementModel, twin: ReplacementModel, chosen: dict[str, str]) -> None:
    pool = some_features(model, 6)
    prompts = behavior("logprob").behaviors[:2]
    for k in (0, 3):
        fast = pie.fap_synergy_reranking(pool, prompts, model, k, **chosen)
        assert fast == reference.fap_synergy_reranking(pool, prompts, twin, k, **chosen)
        assert len(fast) == k
    with pytest.raises(BudgetError, match="budget 7 exceeds the 6 features of the pool"):
        pie.fap_synergy_reranking(pool, prompts, model, 7)


def test_gradient_rows_select_too(model: ReplacementModel) -> None:
    pool, prompts = some_features(model, 8), behavior().behaviors
    found = pie.fap_synergy_reranking(pool, prompts, model, 4, estimator="gradient-difference")
    assert len(found) == 4 and found <= set(pool)


def assert_same_evaluation(fast: dict[str, Any], literal: dict[str, Any]) -> None:
    for key in literal:
        expected = literal[key] if key == "kl_direction" else pytest.approx(literal[key], abs=CLOSE)
        assert fast[key] == expected, key


@pytest.mark.parametrize("kl_direction", ["model||circuit", "circuit||model"])
@pytest.mark.parametrize("switches", [{}, {"baseline": "zero", "error": "drop"}])
def test_evaluation_of_circuits(
    model: ReplacementModel, switches: dict[str, str], kl_direction: str
) -> None:
    kept, test_set = some_features(model, 20), behavior().test_set
    arguments = model, Circuit(kept, **switches), test_set
    fast = pie.evaluate_interpretation(*arguments, kl_direction=kl_direction)
    literal = reference.evaluate_interpretation(*arguments, kl_direction=kl_direction)
    assert_same_evaluation(fast, literal)
    assert 0.05 < fast["mean_kl"] < 20
    if not switches:
        bare = pie.evaluate_interpretation(model, set(kept), test_set, kl_direction=kl_direction)
        assert bare == fast


def test_evaluation_of_another_model(model: ReplacementModel) -> None:
    kept, test_set = some_features(model, 20), behavior().test_set
    other = model.restricted_to(Circuit(kept))
    fast = pie.evaluate_interpretation(model, other, test_set)
    assert_same_evaluation(fast, reference.evaluate_interpretation(model, other, test_set))
    as_circuit = pie.evaluate_interpretation(model, Circuit(kept), test_set)
    assert fast["kl_divergences"] == pytest.approx(as_circuit["kl_divergences"], abs=CLOSE)
    itself = pie.evaluate_interpretation(model, model, test_set)
    assert itself["kl_divergences"] == [0.0, 0.0]
    assert itself["behavioral_fidelity"] == 1.0


@pytest.mark.usefixtures("small_pools")
@pytest.mark.parametrize(
    ("paired", "budget", "chosen"),
    [
        (True, 4, {}),
        (True, 4, {"direction": "denoising", "synergy": "signed", "bonus": "sum"}),
        (True, 3, {"method": "fap", "baseline": "zero"}),
        (True, 0, {}),
        (False, 4, {}),
        (False, 0, {}),
    ],
)
def test_discovery(
    model: ReplacementModel,
    twin: ReplacementModel,
    paired: bool,
    budget: int,
    chosen: dict[str, Any],
) -> None:
    b = behavior(paired=paired)
    counted, interpret = [], model.interpret
    model.interpret = lambda features, prompts: (  # type: ignore[method-assign]
        counted.extend(features) or interpret(features, prompts)
    )
    fast = pie.pie_circuit_discovery(model, b, budget, pool_factor=2, **chosen)
    literal = reference.pie_circuit_discovery(twin, b, budget, pool_factor=2, **chosen)
    assert fast["features"] == literal["features"]
    assert len(fast["features"]) == budget
    order = [i.feature for i in fast["interpretations"]]
    assert order == [i.feature for i in literal["interpretations"]]
    assert counted == order, "only what is kept is interpreted"
    assert fast.n_interpreted == budget
    for one, other in zip(fast["interpretations"], literal["interpretations"], strict=True):
        assert float(one) == pytest.approx(float(other), abs=CLOSE)
        assert (one.label, one.positions) == (other.label, other.positions)
        assert [t.token for t in one.promoted] == [t.token for t in other.promoted]
    assert_same_evaluation(fast["evaluation"], literal["evaluation"])
    assert fast["evaluation"]["switches"]["baseline"] == chosen.get(
        "baseline", "counterfactual" if paired else "mean"
    )


@pytest.mark.parametrize("functions", [pie, reference], ids=["fast", "reference"])
def test_budgets_above_what_is_active(functions: Any, model: ReplacementModel) -> None:
    n_active = len(model.attribute(behavior().behaviors).active)
    assert 20 < n_active < len(list(model.clt_features))
    for call in (functions.prune_features, functions.pie_circuit_discovery):
        with pytest.raises(
            BudgetError, match=f"budget {n_active + 1} exceeds the {n_active} active features"
        ):
            call(model, behavior(), n_active + 1)


def test_prompts_bring_their_metric(model: ReplacementModel) -> None:
    effects = {}
    feature = some_features(model, 1)[0]
    for metric in ("logit-diff", "logprob", "prob-diff"):
        prompts = behavior(metric).behaviors
        model.attribute(prompts)
        effects[metric] = [
            pie.compute_fap_score(feature, model),
            pie.measure_behavioral_importance(model, feature, prompts),
        ]
        # a plain list says nothing of a metric: it is measured as what was attributed last
        plain = pie.measure_behavioral_importance(model, feature, list(prompts))
        assert plain == effects[metric][1]
        evaluation = pie.evaluate_interpretation(model, {feature}, behavior(metric).test_set)
        assert evaluation["metric"] == metric
    assert len({round(e[0], 6) for e in effects.values()}) == 3
    assert len({round(e[1], 6) for e in effects.values()}) == 3
    model.attribute(list(SELECTION))
    assert pie.compute_fap_score(feature, model) == effects["logit-diff"][0]


def test_attributions_are_those_of_the_current_settings(model: ReplacementModel) -> None:
    prompts = behavior().behaviors
    full = model.attribute(prompts)
    assert model.attribute(list(prompts)) is full, "equal prompts are not run again"
    model.gradient = "frozen"
    frozen = model.attribute(prompts)
    assert not np.allclose(full.effect, frozen.effect)
    model.gradient, model.switches = "full", Circuit((), "zero")
    assert len(model.attribute(prompts).active) < len(full.active)


def test_means_are_those_of_the_selection(model: ReplacementModel) -> None:
    b = behavior(paired=False)
    kept = Circuit(some_features(model, 20), "mean")
    fresh = ReplacementModel(model.host, model.clt)
    for functions in (pie, reference):
        with pytest.raises(PieFastError, match=r"baseline 'mean' .*model.attribute\(prompts\)"):
            functions.evaluate_interpretation(fresh, kept, b.test_set)
    fresh.attribute(b.behaviors)
    found = pie.evaluate_interpretation(fresh, kept, b.test_set)
    ids = [f.to_global(model.clt.n_features) for f in kept]
    expected = [
        evaluate_circuit(
            model, ids, b.held_out, metric="logit-diff", switches=Switches("mean"), mean_of=prompts
        )["kl_divergences"]
        for prompts in (b.selection, b.held_out)
    ]
    assert found["kl_divergences"] == expected[0]
    assert found["kl_divergences"] != pytest.approx(expected[1], rel=1e-3)
    assert_same_evaluation(found, reference.evaluate_interpretation(fresh, kept, b.test_set))


@pytest.mark.parametrize("functions", [pie, reference], ids=["fast", "reference"])
def test_prompts_that_cannot_be_read(functions: Any, model: ReplacementModel) -> None:
    too_long = [Prompt((0,) * 41, answer=3, foil=5)]
    unknown = [Prompt((0, 60), answer=3, foil=5)]
    for prompts, message in (
        (too_long, "41 tokens exceed the model's context of 40"),
        (unknown, "token id 60"),
        ([], "at least 1 is needed"),
    ):
        with pytest.raises(BehaviorError, match=message):
            functions.measure_behavioral_importance(model, FeatureId(0, 1), prompts)
        with pytest.raises(BehaviorError, match=message):
            functions.fap_synergy_reranking([FeatureId(0, 1)], prompts, model, 1)
        with pytest.raises(BehaviorError, match=message):
            functions.evaluate_interpretation(model, {FeatureId(0, 1)}, prompts)
    with pytest.raises(BehaviorError, match="kl has gradient 0 at the clean run"):
        functions.prune_features(model, behavior("kl"), 3)


def test_features_that_the_clt_does_not_have(model: ReplacementModel) -> None:
    for feature in (FeatureId(3, 0), FeatureId(0, 48)):
        with pytest.raises(PieFastError, match="layers 0 to 2, indices 0 to 47"):
            pie.measure_behavioral_importance(model, feature, behavior().behaviors)
        with pytest.raises(PieFastError, match="layers 0 to 2, indices 0 to 47"):
            pie.evaluate_interpretation(model, [feature], behavior().test_set)
