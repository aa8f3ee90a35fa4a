"""Toys written from nothing but the documented protocols, and strategies that draw them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True, order=True)
class Feature:
    layer: int
    index: int
    gradient: np.ndarray = field(compare=False, repr=False)
    value: np.ndarray = field(compare=False, repr=False)


class Toy:
    """m(kept, prompt) = sum of singles + sum of pair terms: a set function with AND and OR."""

    def __init__(self, features, singles, pairs):
        self.clt_features = features
        self.singles = singles  # [n_prompts][feature.index]
        self.pairs = pairs  # {(i, j): weight}, i < j
        self.calls = Counter()

    def metric(self, kept, prompt):
        indexes = sorted(f.index for f in kept)
        total = 0.0
        for i in indexes:
            total += self.singles[prompt % len(self.singles)][i]
        for pair in combinations(indexes, 2):
            total += self.pairs.get(pair, 0.0)
        return total

    def importance(self, features, behaviors):
        self.calls["importance"] += 1
        rest = [f for f in self.clt_features if f not in features]
        total = 0.0
        for prompt in behaviors:
            total += self.metric(self.clt_features, prompt) - self.metric(rest, prompt)
        return total / len(behaviors)

    def __call__(self, prompt):
        m = max(min(self.metric(self.clt_features, prompt), 10.0), -10.0)
        p = 1 / (1 + math.exp(-m))
        return np.array([p, 1 - p])


class BatchToy(Toy):
    """The same numbers through the optional batch methods."""

    directions = ("noising", "denoising")

    def importance(self, features, behaviors, direction="noising"):
        if direction == "noising":
            return super().importance(features, behaviors)
        total = super().importance(set(self.clt_features), behaviors)
        rest = set(self.clt_features) - set(features)
        return total - super().importance(rest, behaviors)

    def importances(self, features, behaviors, direction="noising"):
        return np.array([self.importance({f}, behaviors, direction) for f in features])

    def joint_importances(self, pairs, behaviors, direction="noising"):
        return np.array([self.importance(set(pair), behaviors, direction) for pair in pairs])

    def restricted_to(self, circuit):
        kept = [f for f in self.clt_features if f in circuit]
        return type(self)(kept, self.singles, self.pairs)


@dataclass
class Behavior:
    behaviors: list
    test_set: list


numbers = st.one_of(
    st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0]),
    st.floats(-3, 3, allow_subnormal=False),
)
#: numbers that must be refused, or that overflow on the way
wild = st.one_of(numbers, st.sampled_from([math.nan, math.inf, 1e308, 1.7e308, -1.7e308]))


@st.composite
def toys(draw, kinds=(Toy, BatchToy), min_features=1, numbers=numbers):
    n = draw(st.integers(min_features, 7))
    n_prompts = draw(st.integers(1, 3))
    shape = draw(st.sampled_from([(), (3,), (n_prompts, 2), (n_prompts, 1, 2), (5, 2)]))
    size = math.prod(shape)
    row = st.lists(numbers, min_size=size, max_size=size)

    def array():
        return np.array(draw(row)).reshape(shape)

    features = [Feature(i % 2, i, array(), array()) for i in range(n)]
    singles = [draw(st.lists(numbers, min_size=n, max_size=n)) for _ in range(n_prompts)]
    pairs = (
        draw(st.dictionaries(st.sampled_from(list(combinations(range(n), 2))), numbers))
        if (n > 1)
        else {}
    )
    model = draw(st.sampled_from(kinds))(features, singles, pairs)
    return model, Behavior(list(range(n_prompts)), [0, 1])
