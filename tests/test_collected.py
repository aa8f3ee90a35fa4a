"""What is shown and sampled of a collection, against the activations it was made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_fast._native import ContextCollector
from pie_fast.errors import PieFastError
from pie_fast.interpret.contexts import Corpus
from pie_fast.interpret.passes.collected import Collected


@dataclass(frozen=True)
class World:
    """Activations ``[n_tokens, K]`` over a corpus, 0 where a position does not count."""

    corpus: Corpus
    activations: np.ndarray
    collected: Collected

    def of(self, k: int, sequence: int) -> np.ndarray:
        return self.activations[self.corpus.ptr[sequence] : self.corpus.ptr[sequence + 1], k]

    def peak(self, k: int, sequence: int) -> float:
        values = self.of(k, sequence)
        return float(values[np.abs(values).argmax()])


def world(seed: int = 0, n: int = 40, k: int = 3, density: float = 0.15, **limits: int) -> World:
    rng = np.random.default_rng(seed)
    ptr = np.cumsum([0, *rng.integers(1, 9, n)]).astype(np.int64)
    sources = tuple(f"file {i % 2}" for i in range(n))
    counted = rng.random(ptr[-1]) < 0.9
    corpus = Corpus(np.arange(ptr[-1]), ptr, None, sources, counted)
    values = rng.choice(np.array([-2, 0.5, 1, 1.5, 3], dtype=np.float32), (ptr[-1], k))
    values *= rng.random(values.shape) < density * np.arange(k)  # the first one never fires
    collector = ContextCollector(k, **limits)
    collector.add(0, ptr, values, counted)
    ids = np.arange(10, 10 + k)
    collected = Collected(ids, corpus, collector.state())
    return World(corpus, values * counted[:, None], collected)


worlds = st.builds(
    world,
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    n_top=st.integers(0, 9),
    n_sample=st.integers(0, 9),
    n_silent=st.integers(0, 9),
)


@settings(deadline=None, max_examples=50)
@given(worlds)
def test_peaks_density_and_coactivity_are_exact(one):
    got, counted = one.collected, max(one.corpus.counted_mask.sum(), 1)
    fires = one.activations != 0
    assert got.density.tolist() == (fires.sum(0) / counted).tolist()
    for i in range(3):
        peaks = [one.peak(i, s) for s in range(one.corpus.n_prompts)]
        assert got.peaks(i).tolist() == peaks
        for j in range(3):
            share = (fires[:, i] & fires[:, j]).sum() / max(fires[:, i].sum(), 1)
            assert got.coactive_share[i, j] == share


@settings(deadline=None, max_examples=50)
@given(worlds, st.integers(0, 2))
def test_samples_hold_the_activations_and_weigh_as_the_corpus(one, k):
    sampled = one.collected.sampled(k)
    active = np.array([one.peak(k, s) != 0 for s in range(one.corpus.n_prompts)])
    assert (np.diff(sampled.sequences) > 0).all()
    assert sampled.corpus.sources == one.corpus.take(sampled.sequences).sources
    dense = np.zeros(len(sampled.corpus.tokens), dtype=np.float32)
    dense[sampled.activity.at] = sampled.activity.activation
    for i, sequence in enumerate(sampled.sequences):
        here = slice(*sampled.corpus.ptr[i : i + 2])
        assert dense[here].tolist() == one.of(k, sequence).tolist()
    n_sample, n_silent = one.collected.state["limits"][1:].tolist()
    for kind, n_most in ((active, n_sample), (~active, n_silent)):
        chosen = kind[sampled.sequences]
        assert chosen.sum() == min(n_most, kind.sum())
        if chosen.any():
            assert sampled.weights[chosen].sum() == pytest.approx(kind.sum(), rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(worlds, st.integers(0, 2), st.integers(0, 5))
def test_contexts_are_top_then_quantiles_then_silent(one, k, n):
    got = one.collected
    shown = got.contexts(k, n)
    by_kind = {
        kind: [s.sequence for s in shown if s.kind == kind]
        for kind in ("top", "quantile", "silent")
    }
    assert [s.kind for s in shown] == [kind for kind, some in by_kind.items() for _ in some]
    assert len({s.sequence for s in shown}) == len(shown)

    strength = np.array([-abs(one.peak(k, s)) for s in range(one.corpus.n_prompts)])
    ranking = [s for s in np.argsort(strength, kind="stable").tolist() if strength[s] < 0]
    assert got.top(k).tolist() == ranking[: got.state["limits"][0]]
    assert by_kind["top"] == ranking[: got.state["limits"][0]][:n]
    left = [s for s in ranking if s in got.sample(k) and s not in by_kind["top"]]
    assert len(by_kind["quantile"]) == min(n, len(left))
    assert by_kind["quantile"] == [s for s in left if s in by_kind["quantile"]]
    if n > 1 and left:
        assert by_kind["quantile"][0] == left[0] and by_kind["quantile"][-1] == left[-1]
    assert len(by_kind["silent"]) == min(n, len(got.silent(k)))
    for one_shown in shown:
        values = one.of(k, one_shown.sequence)
        assert one_shown.activations.tolist() == values.tolist()
        assert one_shown.source == f"file {one_shown.sequence % 2}"
        assert one_shown.activation == one.peak(k, one_shown.sequence)
        silent = one_shown.kind == "silent"
        assert silent == (not values.any())
        assert one_shown.peak == (None if silent else np.abs(values).argmax())


@settings(deadline=None, max_examples=50)
@given(worlds, st.integers(0, 2), st.integers(1, 30))
def test_histograms_have_exact_edges_and_all_positions(one, k, n_bins):
    values = np.abs(one.activations[one.activations[:, k] != 0, k])
    histogram = one.collected.histogram(k, n_bins)
    assert len(histogram.counts) <= n_bins
    assert len(histogram.edges) == len(histogram.counts) + 1
    if not values.size:
        assert histogram.edges == (0.0,)
        return
    edges = np.array(histogram.edges)
    assert edges[0] <= values.min() and values.max() < edges[-1]
    assert (edges.astype(np.float32).view(np.uint32) % (1 << 20) == 0).all()
    counts = [((lo <= values) & (values < hi)).sum() for lo, hi in pairwise(edges)]
    assert list(histogram.counts) == counts


def test_the_largest_and_smallest_floats_have_a_bin():
    corpus = Corpus(np.arange(2), np.array([0, 2]))
    collector = ContextCollector(1)
    largest = np.finfo(np.float32).max
    values = np.array([[1e-45], [-largest]], dtype=np.float32)
    collector.add(0, corpus.ptr, values, corpus.counted_mask)
    collected = Collected(np.array([7]), corpus, collector.state())
    assert collected.histogram(0, 1).edges == (0.0, 2.0**128)
    assert collected.histogram(0, 3000).counts[0] == collected.histogram(0, 3000).counts[-1] == 1
    assert collected.peaks(0).tolist() == [-largest]


def test_silent_weights_are_one_where_all_were_kept():
    one = world(n_sample=500, n_silent=500)
    for k in range(3):
        sampled = one.collected.sampled(k)
        assert sampled.weights.tolist() == [1.0] * one.corpus.n_prompts
        assert sampled.sequences.tolist() == list(range(one.corpus.n_prompts))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.peaks(3), "feature 3 is not there; the features are 0 to 2"),
        (lambda c: c.top(-1), "feature -1 is not there"),
        (lambda c: c.histogram(0, 0), "n_bins is 0, must be at least 1"),
        (lambda c: c.activations(0, 40), "activations of feature 0 in sequence 40 were not kept"),
        (lambda c: replace(c, ids=c.ids[::-1]), "ids of features must ascend"),
        (lambda c: replace(c, ids=c.ids[:2]), "the state has 3 features, .* have 2"),
        (lambda c: replace(c, corpus=c.corpus.take(range(39))), "40 sequences, .* have 39"),
        (lambda c: replace(c, corpus=replace(c.corpus, counted=None)), "counted positions"),
        (
            lambda c: replace(c, corpus=c.corpus.take(range(39, -1, -1))),
            "positions of sequence .*the corpus and ids have",
        ),
        (
            lambda c: replace(c, corpus=replace(c.corpus, counted=c.corpus.counted[::-1])),
            "a peak at position . of sequence .*, which the corpus does not count",
        ),
        (lambda c: replace(c, state={**c.state, "fires": c.state["fires"] + 1}), "coactive"),
        (lambda c: replace(c, state={}), "the state has no fires"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(PieFastError, match=message):
        call(world().collected)


def test_the_sequences_are_those_of_the_corpus():
    corpus = Corpus(np.arange(1), np.array([0, 1]))
    collector = ContextCollector(1)
    collector.add(5, corpus.ptr, np.ones((1, 1), dtype=np.float32), corpus.counted_mask)
    with pytest.raises(PieFastError, match="is not of the sequences 0, 1,"):
        Collected(np.array([0]), corpus, collector.state())
