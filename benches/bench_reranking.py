"""The whole reranking (scores, all-pairs exact synergy, greedy): reference beside pie_fast.

    pytest benches/bench_reranking.py [--full]

Both select from the same pool on the same prompts, runs interleaved; the answers are asserted
equal before a ratio is told, and only ratios of one run count. ``--full`` takes the pool of 200
(the reference then needs minutes on the toy, an hour on the demo model).
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
    model: Any
    k: int
    least_ratio: float
    options: dict[str, Any] = field(default_factory=dict)

    def rerank(self, functions: Any) -> set[Any]:
        return functions.fap_synergy_reranking(
            self.features, self.behaviors, self.model, self.k, **self.options
        )


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
        return Case(model.clt_features, range(n_prompts), model, k, least_ratio)

    return build


#: name -> what builds the case, small or full; a model under test adds its line here
CASES: dict[str, Callable[[bool], Case]] = {
    # no batch methods: all that is saved is measuring singles again, 828 calls become 300
    "toy": toy(Network, least_ratio=2.0),
    # batch methods: most of the ratio is the model's own batching, which the reference never uses
    "toy-batched": toy(BatchNetwork, least_ratio=20.0),
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


def test_reranking_ratio(case: Case, request: pytest.FixtureRequest, record_property: Any) -> None:
    repeats = 1 if request.config.getoption("--full") else 5
    ours, theirs = [], []
    for _ in range(repeats):  # interleaved: a busy neighbour then slows both
        time_fast, fast = seconds(lambda: case.rerank(pie))
        time_reference, literal = seconds(lambda: case.rerank(reference))
        assert fast == literal
        assert len(fast) == case.k
        ours.append(time_fast)
        theirs.append(time_reference)
    ratio = min(theirs) / min(ours)
    record_property("ratio", ratio)
    print(
        f"\nreranking {len(case.features)} -> {case.k} on {len(case.behaviors)} prompts: "
        f"reference {min(theirs):.3f} s, pie_fast {min(ours):.4f} s, ratio {ratio:.1f}"
    )
    assert ratio >= case.least_ratio


def test_reranking_time(case: Case, benchmark: Any) -> None:
    assert len(benchmark(case.rerank, pie)) == case.k
