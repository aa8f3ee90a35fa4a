"""The whole reranking (scores, all-pairs exact synergy, greedy): reference beside pie_fast.

    pytest benches/bench_reranking.py -s [--full] [-k demo]

Both select from the same pool on the same prompts, runs interleaved; the answers are asserted
equal before a ratio is told, and only ratios of one run count. ``--full`` takes the pool of 200
(the reference then needs minutes on the toy, hours on the demo model).

On the demo model gradient-difference rows stand beside: another estimate of the same synergies, so
nothing is asserted equal; how far they agree with the exact values is told instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pie_fast import _native, pie, reference


@dataclass(frozen=True)
class Case:
    """One reranking, and the least ratio (reference / ours) that it must show."""

    features: list[Any]
    behaviors: Any
    new_model: Callable[[], Any]  # for every run, so that none finds another's backward done
    k: int
    least_ratio: float
    repeats: int = 5
    estimators: tuple[str, ...] = ()  # told beside the exact one

    def rerank(self, functions: Any, **options: Any) -> set[Any]:
        return functions.fap_synergy_reranking(
            self.features, self.behaviors, self.new_model(), self.k, **options
        )

    def synergies(self, estimator: str) -> np.ndarray:
        """``[n_pairs]``."""
        matrix = self.new_model().synergies(
            self.features, self.behaviors, direction="noising", estimator=estimator
        )
        return matrix[np.triu_indices(len(self.features), 1)]


@dataclass(frozen=True, order=True)
class Feature:
    index: int
    gradient: np.ndarray = field(compare=False, repr=False)
    value: np.ndarray = field(compare=False, repr=False)


class Network:
    """A small tanh network behind the features' writes: a metric that costs and saturates."""

    def __init__(self, n_features: int, n_prompts: int, width: int = 32) -> None:
        rng = np.random.default_rng(0)
        self.writes = rng.normal(size=(n_prompts, n_features, width)) / np.sqrt(n_features)
        self.hidden = rng.normal(size=(width, width)) / np.sqrt(width)
        self.readout = rng.normal(size=width) / np.sqrt(width)
        self.whole = self.metrics(np.ones((1, n_features)), range(n_prompts))[0]
        slopes = self.writes @ (self.hidden @ self.readout) / n_prompts
        self.clt_features = [
            Feature(i, slopes[:, i : i + 1], np.ones((n_prompts, 1))) for i in range(n_features)
        ]

    def metrics(self, masks: np.ndarray, prompts: Any) -> np.ndarray:
        """``[n_masks]``: the metric with only the features of each ``[n_features]`` mask."""
        total = np.zeros(len(masks))
        for prompt in prompts:
            total += np.tanh(np.tanh(masks @ self.writes[prompt]) @ self.hidden) @ self.readout
        return total / len(prompts)

    def without(self, sets: Any, prompts: Any) -> np.ndarray:
        masks = np.ones((len(sets), len(self.clt_features)))
        for mask, features in zip(masks, sets, strict=True):
            mask[[f.index for f in features]] = 0.0
        whole = self.metrics(np.ones((1, masks.shape[1])), prompts)
        return whole - self.metrics(masks, prompts)

    def importance(self, features: Any, behaviors: Any) -> float:
        return float(self.without([features], behaviors)[0])

    def __call__(self, prompt: int) -> np.ndarray:
        p = 1 / (1 + np.exp(-self.whole))
        return np.array([p, 1 - p])


class BatchNetwork(Network):
    """The same, many masks in one product."""

    def importances(self, features: Any, behaviors: Any) -> np.ndarray:
        return self.without([{f} for f in features], behaviors)

    def joint_importances(self, pairs: Any, behaviors: Any) -> np.ndarray:
        return self.without(pairs, behaviors)


def toy(kind: type[Network], least_ratio: float) -> Callable[[bool], Case]:
    def build(full: bool) -> Case:
        n_features, k, n_prompts = (200, 50, 32) if full else (24, 12, 8)
        model = kind(n_features, n_prompts)
        return Case(
            model.clt_features,
            range(n_prompts),
            lambda: model,
            k,
            least_ratio,
            repeats=1 if full else 5,
        )

    return build


def demo(full: bool) -> Case:
    """Indirect-object identification in the demo model: its best features by mean |FAP|."""
    from pie_fast.behaviors import load_behavior
    from pie_fast.data import demo_clt_path, demo_model_path
    from pie_fast.replacement_model import ReplacementModel, load_model

    loaded = load_model(demo_model_path(), demo_clt_path(), device="cpu")
    n_features, k, n_prompts = (200, 50, 32) if full else (24, 12, 8)
    behavior = load_behavior(
        "ioi", tokenizer=loaded.host.tokenizer, n_selection=n_prompts, n_held_out=1
    )
    return Case(
        sorted(pie.prune_features(loaded, behavior, n_features)),
        behavior.behaviors,
        lambda: ReplacementModel(loaded.host, loaded.clt),
        k,
        least_ratio=3.0,
        repeats=1,  # the reference takes half a minute, and its ratio is far from the gate
        estimators=("gradient-difference",),
    )


#: name -> what builds the case, small or full; a model under test adds its line here
CASES: dict[str, Callable[[bool], Case]] = {
    # no batch methods: all that is saved is measuring singles again, 828 calls become 300
    "toy": toy(Network, least_ratio=2.0),
    # batch methods: most of the ratio is the model's own batching, which the reference never uses
    "toy-batched": toy(BatchNetwork, least_ratio=20.0),
    # what is saved: preparing the batch for every set, singles for every pair, one pass for each
    "demo": demo,
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    if _native.build_profile == "debug":
        pytest.fail("a debug build says nothing about speed; build with --release")
    return CASES[request.param](request.config.getoption("--full"))


def seconds(call: Callable[[], set[Any]]) -> tuple[float, set[Any]]:
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def test_reranking_ratio(case: Case, record_property: Any) -> None:
    ours, theirs = [], []
    others: dict[str, list[tuple[float, set[Any]]]] = {name: [] for name in case.estimators}
    for _ in range(case.repeats):  # interleaved: a busy neighbour then slows both
        time_fast, fast = seconds(lambda: case.rerank(pie))
        time_reference, literal = seconds(lambda: case.rerank(reference))
        assert fast == literal
        assert len(fast) == case.k
        ours.append(time_fast)
        theirs.append(time_reference)
        for name, runs in others.items():
            runs.append(seconds(lambda name=name: case.rerank(pie, estimator=name)))
    ratio = min(theirs) / min(ours)
    record_property("ratio", ratio)
    print(
        f"\nreranking {len(case.features)} -> {case.k} on {len(case.behaviors)} prompts: "
        f"reference {min(theirs):.3f} s, pie_fast {min(ours):.4f} s, ratio {ratio:.1f}"
    )
    exact = case.synergies("exact") if others else np.zeros(0)
    for name, runs in others.items():
        best = min(spent for spent, _ in runs)
        rho = spearman(exact, case.synergies(name))
        record_property(f"ratio {name}", min(theirs) / best)
        record_property(f"spearman {name}", rho)
        print(
            f"  {name}: {best:.4f} s, ratio to the reference {min(theirs) / best:.1f}, to exact "
            f"{min(ours) / best:.1f}; rank correlation with the exact synergies {rho:.3f}; "
            f"{len(fast & runs[0][1])} of the {case.k} selected are the same"
        )
        assert rho > 0.5, "an estimate that orders pairs no better than this estimates nothing"
    assert ratio >= case.least_ratio


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation, ties at their middle rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[where]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def test_reranking_time(case: Case, benchmark: Any) -> None:
    slow = case.repeats == 1
    found = benchmark.pedantic(case.rerank, (pie,)) if slow else benchmark(case.rerank, pie)
    assert len(found) == case.k
