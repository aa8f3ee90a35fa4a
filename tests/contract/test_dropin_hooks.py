"""The optional batch methods are used where a model has them, and checked for what they return."""

from __future__ import annotations

import json
import math
import pickle  # of our own objects, made here; the package itself never unpickles a file
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

import pie_fast
from pie_fast import pie, reference
from pie_fast.circuit import Circuit
from pie_fast.errors import PieFastError
from pie_fast.interpretation import Interpretation, TokenEffect, TopContext
from pie_fast.types import FeatureId

N, N_PROMPTS = 12, 3


class Attributed:
    """What ``attributed`` gives: the arrays of one feature, prompts first."""

    def __init__(self, gradient, value):
        self.gradient, self.value = gradient, value

    def __lt__(self, other):
        raise AssertionError("only the features themselves are ordered")


class Model:
    """Features are mere names; the model keeps the gradients and measures in batches."""

    directions = ("noising", "denoising")

    def __init__(self):
        rng = np.random.default_rng(0)
        self.clt_features = [FeatureId(i % 3, i) for i in range(N)]
        self.effects = rng.normal(size=(N, N_PROMPTS))
        self.pairs = rng.normal(size=(N, N))
        self.calls = Counter()

    def metric(self, kept, prompt):
        at = sorted(f.index for f in kept)
        return self.effects[at, prompt].sum() + sum(self.pairs[p] for p in combinations(at, 2))

    def importance(self, features, behaviors, direction="noising"):
        rest = [f for f in self.clt_features if f not in features]
        ends = (self.clt_features, rest) if direction == "noising" else (features, [])
        return sum(self.metric(ends[0], p) - self.metric(ends[1], p) for p in behaviors) / len(
            behaviors
        )

    def __call__(self, prompt, kept=None):
        kept = self.clt_features if kept is None else kept
        return np.array([0.0, np.tanh(self.metric(kept, prompt))])  # logits

    def restricted_to(self, circuit):
        assert circuit.baseline == "zero"
        return lambda prompt: self(prompt, circuit.features)

    def attributed(self, feature):
        gradient = self.effects[feature.index][:, None] / N_PROMPTS
        return Attributed(gradient, np.ones((N_PROMPTS, 1)))


class BatchModel(Model):
    def fap_scores(self, features, behaviors):
        self.calls["fap_scores"] += 1
        return self.effects[[f.index for f in features]][:, list(behaviors)]

    def pool(self, behaviors, size, *, importance, rank_by, direction):
        assert (importance, rank_by, direction) == ("fap", "mean_abs", "denoising")
        self.calls["pool"] += 1
        scores = np.abs(self.fap_scores(self.clt_features, behaviors)).mean(axis=1)
        best = pie_fast.top_k(scores, min(size, N))
        return [self.clt_features[i] for i in best], scores[best], N

    def synergies(self, features, behaviors, *, direction, estimator):
        self.calls[estimator] += 1
        at = [f.index for f in features]
        upper = np.triu(self.pairs[np.ix_(at, at)], 1) if at == sorted(at) else None
        if upper is None:  # pairs are stored for i < j; features come ordered by layer first
            low, high = np.minimum.outer(at, at), np.maximum.outer(at, at)
            return self.pairs[low, high] * (direction == "denoising")
        return (upper + upper.T) * (direction == "denoising")

    def interpret(self, features, behaviors):
        self.calls["interpret"] += len(features)
        return [Interpretation(f, self.effects[f.index].mean()) for f in features]

    def evaluate(self, circuit, test_behaviors, *, kl_direction):
        self.calls["evaluate"] += 1
        result = reference.evaluate_interpretation(
            self, circuit, test_behaviors, kl_direction=kl_direction, outputs="logits"
        )
        return {**result, "faithfulness": 0.5}


class Behavior:
    behaviors = range(N_PROMPTS)
    test_set = range(1)


OPTIONS = {"direction": "denoising", "outputs": "logits", "baseline": "zero", "synergy": "signed"}


def test_a_model_with_every_batch_method_agrees_with_the_reference():
    model = BatchModel()
    fast = pie.pie_circuit_discovery(model, Behavior, 5, **OPTIONS)
    assert model.calls == {"pool": 1, "fap_scores": 1, "exact": 1, "interpret": 5, "evaluate": 1}
    literal = reference.pie_circuit_discovery(Model(), Behavior, 5, **OPTIONS)
    assert fast["features"] == literal["features"]
    assert [i.feature for i in fast["interpretations"]] == [
        i.feature for i in literal["interpretations"]
    ]
    for one, other in zip(fast["interpretations"], literal["interpretations"], strict=True):
        assert float(one) == pytest.approx(float(other), abs=1e-12)
    assert fast["evaluation"]["faithfulness"] == 0.5
    assert fast["evaluation"]["kl_divergences"] == pytest.approx(
        literal["evaluation"]["kl_divergences"], abs=1e-12
    )
    assert fast.settings["baseline"] == "zero"


def test_estimators_need_a_model_that_has_them():
    model = BatchModel()
    args = model.clt_features, range(N_PROMPTS)
    pie.fap_synergy_reranking(*args, model, 4, estimator="gradient-difference")
    assert model.calls["gradient-difference"] == 1
    with pytest.raises(PieFastError, match="needs a model with synergies"):
        pie.fap_synergy_reranking(*args, Model(), 4, estimator="gradient-difference")


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("fap_scores", np.zeros((N, 1)), "came with shape"),
        ("fap_scores", np.full((N, N_PROMPTS), math.nan), "must be finite"),
        ("synergies", np.zeros((N, 2)), "came with shape"),
        ("synergies", np.full((N, N), math.inf), "not finite"),
    ],
)
def test_broken_batch_methods_are_refused(monkeypatch, method, answer, message):
    model = BatchModel()
    monkeypatch.setattr(model, method, lambda *args, **kwargs: answer)
    with pytest.raises(PieFastError, match=message):
        pie.fap_synergy_reranking(model.clt_features, range(N_PROMPTS), model, 4)


@pytest.mark.parametrize("method", ["importances", "joint_importances"])
@pytest.mark.parametrize("answer", [[1.0], [math.nan] * 66])
def test_broken_importances_are_refused(method, answer):
    model = Model()
    model.importances = lambda features, behaviors: np.zeros(len(features))
    model.joint_importances = lambda pairs, behaviors: np.zeros(len(pairs))
    setattr(model, method, lambda sets, behaviors: answer[: len(sets)])
    with pytest.raises(PieFastError, match=r"came with shape|must be finite"):
        pie.fap_synergy_reranking(model.clt_features, range(N_PROMPTS), model, 4)


def test_too_few_interpretations_are_refused(monkeypatch):
    monkeypatch.setattr(BatchModel, "interpret", lambda self, features, behaviors: [])
    with pytest.raises(PieFastError, match="0 interpretations for 5 features"):
        pie.pie_circuit_discovery(BatchModel(), Behavior, 5, **OPTIONS)


@pytest.mark.parametrize("functions", [pie, reference], ids=["fast", "reference"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([0.2, 0.2], "expected probabilities of sum 1"),
        ([1.5, -0.5], "expected probabilities"),
        ([math.nan, 1.0], "not finite"),
        (1.0, r"shape \(\)"),
        ([], "shape"),
        ([0.5, 0.25, 0.25], r"the circuit \(1, 3\)"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused(functions, answer, message):
    with pytest.raises(PieFastError, match=message):
        functions.evaluate_interpretation(lambda _: [0.5, 0.5], lambda _: answer, ["x"])


@pytest.mark.parametrize("functions", [pie, reference], ids=["fast", "reference"])
def test_divergences_by_hand(functions):
    full, part = [0.5, 0.5], [0.25, 0.75]
    forward = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    backward = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    args = (lambda _: full), (lambda _: part), ["x", "y"]
    result = functions.evaluate_interpretation(*args)
    assert result["kl_divergences"] == pytest.approx([forward] * 2)
    assert result["kl_divergences_reverse"] == pytest.approx([backward] * 2)
    assert result["behavioral_fidelity"] == pytest.approx(1 - forward)
    assert result["top1_agreement"] == 0
    paper = functions.evaluate_interpretation(*args, kl_direction="circuit||model")
    assert paper["kl_divergences"] == pytest.approx([backward] * 2)
    excluded = functions.evaluate_interpretation(lambda _: full, lambda _: [0.0, 1.0], ["x"])
    assert excluded["kl_divergences"] == [math.inf]
    assert excluded["behavioral_fidelity"] == 0
    same = functions.evaluate_interpretation(lambda _: [1.0, 0.0], lambda _: [1.0, 0.0], ["x"])
    assert same["behavioral_fidelity"] == 1 and same["kl_divergences"] == [0]


def test_circuits():
    a, b = FeatureId(0, 1), FeatureId(1, 0)
    assert Circuit([b, a, b]).features == (b, a), "order kept, each once"
    assert Circuit({b, a}) == Circuit([a, b]), "a set is sorted"
    assert Circuit([a]).n_features == len(Circuit([a])) == 1 and a in Circuit([a])
    assert hash(Circuit([a])) == hash(Circuit([a]))
    assert pickle.loads(pickle.dumps(Circuit([a], "zero"))) == Circuit([a], "zero")
    with pytest.raises(PieFastError, match="error 'lose' is not one of keep, drop"):
        Circuit([a], error="lose")


def test_an_interpretation_is_json():
    interpretation = Interpretation(
        FeatureId(1, 42),
        0.5,
        "names",
        1,
        (3,),
        (TopContext((" When", " Mary"), 1, 2.0),),
        (TokenEffect(" Mary", 7, 0.5),),
    )
    back = json.loads(json.dumps(interpretation.to_dict()))
    assert (back["feature"], back["layer"], back["index"]) == ("L1:42", 1, 42)
    assert back["contexts"] == [
        {
            "tokens": [" When", " Mary"],
            "peak": 1,
            "activation": 2.0,
            "kind": "top",
            "activations": [],
            "source": "",
        }
    ]
    assert str(interpretation.contexts[0]) == " When[[ Mary]]"


def test_a_discovery_survives_pickling():
    result = pie.pie_circuit_discovery(BatchModel(), Behavior, 0, **OPTIONS)
    again = pickle.loads(pickle.dumps(result))
    assert again == result and again.settings == result.settings
    assert result["features"] == set() and result.n_interpreted == 0
