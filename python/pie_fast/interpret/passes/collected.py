"""What one pass over a corpus kept of each feature, and what to show of it. numpy only.

The state is that of ``pie_fast._native.ContextCollector`` (its stub says what each array is): exact
counts and peaks of all sequences, and the activations at all positions of a few of them. A feature
is named by its place ``k`` in ``ids``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast._native import ContextCollector
from pie_fast.errors import PieFastError
from pie_fast.interpret.contexts import Activity, Corpus, Floats, Ints, spread
from pie_fast.interpretation import Histogram

_TOP, _SAMPLE, _SILENT = 1, 2, 4  # bits of kept_kind


@dataclass(frozen=True, eq=False)
class Shown:
    """A sequence that shows what a feature does.

    Attributes:
        kind: ``top``, ``quantile`` or ``silent``.
        sequence: Its index in the corpus.
        peak: Position of the strongest activation (the first one of equals); None where silent.
        activation: The activation there; 0 where silent.
        activations: ``[n_tokens of it]`` float32; 0 where silent, and where a position does not
            count.
        source: Where the sequence comes from; empty where the corpus does not say.
    """

    kind: str
    sequence: int
    peak: int | None
    activation: float
    activations: Floats
    source: str


@dataclass(frozen=True, eq=False)
class Sampled:
    """The uniform samples of the sequences a feature fires in, and of those it does not.

    Attributes:
        corpus: The ``n`` sequences.
        activity: The feature's activations over them.
        weights: ``[n]`` float64, how many sequences of the whole corpus each stands for.
        sequences: ``[n]`` int64, ascending indices in the whole corpus.
    """

    corpus: Corpus
    activity: Activity
    weights: NDArray[np.float64]
    sequences: Ints


@dataclass(frozen=True, eq=False)
class Collected:
    """Contexts of K features over a corpus.

    Attributes:
        ids: ``[K]`` int64, global ids of the features, ascending.
        corpus: All sequences.
        state: The state of the collector that saw them.

    Raises:
        PieFastError: A state that no collector can have, or of another corpus or other features.
    """

    ids: Ints
    corpus: Corpus
    state: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        ContextCollector.from_state(dict(self.state))  # checks every array
        if (np.diff(self.ids) <= 0).any():
            raise PieFastError("ids of features must ascend")
        n, counted = self.state["counts"].tolist()
        _equal("features", len(self.state["fires"]), len(self.ids))
        _equal("sequences", n, self.corpus.n_prompts)
        _equal("counted positions", counted, int(self.corpus.counted_mask.sum()))
        if self.state["seen"].tolist() != [[0, n]] * (n > 0):
            raise PieFastError("the state is not of the sequences 0, 1, ... of the corpus")
        _check_lengths(self.corpus, self.state)
        _check_peaks(self.corpus, self.state)

    @property
    def density(self) -> NDArray[np.float64]:
        """``[K]`` float64, share of the counted positions where each feature fires."""
        return np.asarray(self.state["fires"] / max(int(self.state["counts"][1]), 1))

    @cached_property
    def coactive_share(self) -> NDArray[np.float64]:
        """``[K, K]`` float64, share of the positions where the row's feature fires at which the
        column's fires too; 0 where it never fires.
        """
        return np.asarray(self.state["coactive"] / np.maximum(self.state["fires"], 1)[:, None])

    def histogram(self, k: int, n_bins: int) -> Histogram:
        """How often activations of each size occur.

        The collector's 8 bins an octave, as many of them put together as leave ``n_bins``.

        Args:
            k: The feature.
            n_bins: The most bins, at least 1.

        Raises:
            PieFastError: No such feature, or no bins.
        """
        if n_bins < 1:
            raise PieFastError(f"n_bins is {n_bins}, must be at least 1")
        counts = self.state["histogram"][self._checked(k)]
        used = np.flatnonzero(counts)
        if not used.size:
            return Histogram((0.0,), ())
        begin, end = int(used[0]), int(used[-1]) + 1
        starts = np.arange(begin, end, -(-(end - begin) // n_bins))
        edges = [*map(_edge, starts.tolist()), _edge(end)]
        return Histogram(tuple(edges), tuple(np.add.reduceat(counts[:end], starts).tolist()))

    def peaks(self, k: int) -> Floats:
        """``[n_sequences]`` float32, the strongest activation in each; 0 where it is silent."""
        here = self._range("peak_ptr", k)
        peaks = np.zeros(self.corpus.n_prompts, dtype=np.float32)
        peaks[self.state["peak_sequence"][here]] = self.state["peak_value"][here]
        return peaks

    def top(self, k: int) -> Ints:
        """``[n]`` int64, the sequences with the strongest peaks, strongest first."""
        return self._by_strength(k, self._kept(k, _TOP))

    def sample(self, k: int) -> Ints:
        """``[n]`` int64, a uniform sample of the sequences it fires in, ascending."""
        return self._kept(k, _SAMPLE)

    def silent(self, k: int) -> Ints:
        """``[n]`` int64, a uniform sample of the sequences it does not fire in, ascending."""
        return self._kept(k, _SILENT)

    def activations(self, k: int, sequence: int) -> Floats:
        """``[n_tokens of it]`` float32, at all positions of a kept sequence, 0 where silent.

        Raises:
            PieFastError: The sequence's activations were not kept.
        """
        here = self._range("kept_ptr", k)
        kept = self.state["kept_sequence"][here]
        at = int(np.searchsorted(kept, sequence))
        if at == len(kept) or kept[at] != sequence:
            raise PieFastError(f"activations of feature {k} in sequence {sequence} were not kept")
        if self.state["kept_kind"][here][at] == _SILENT:
            return np.zeros(len(self.corpus.tokens_of(sequence)), dtype=np.float32)
        begin, end = self.state["kept_values_ptr"][here.start + at : here.start + at + 2]
        return np.asarray(self.state["kept_values"][begin:end])

    def sampled(self, k: int) -> Sampled:
        """Both uniform samples as a corpus, and the feature's activations over it."""
        active, silent = self.sample(k), self.silent(k)
        here = self._range("peak_ptr", k)
        n_active = here.stop - here.start
        sequences = np.concatenate([active, silent])
        n_silent = self.corpus.n_prompts - n_active
        share = [n_active / max(len(active), 1), n_silent / max(len(silent), 1)]
        weights = np.repeat(share, [len(active), len(silent)])
        order = np.argsort(sequences)
        sequences = sequences[order]
        corpus = self.corpus.take(sequences)
        none = np.zeros(0, dtype=np.float32)
        values = np.concatenate([none, *(self.activations(k, s) for s in sequences.tolist())])
        at = np.flatnonzero(values)
        return Sampled(corpus, Activity(corpus, at, values[at]), weights[order], sequences)

    def contexts(self, k: int, n: int) -> tuple[Shown, ...]:
        """What to show of a feature: ``n`` sequences of each kind, fewer where there are fewer.

        The strongest; from the strongest to the weakest of the sample, evenly by rank, without
        those already shown; and some it is silent in, evenly over the sample of them.
        """
        top = self.top(k)[:n]
        rest = np.setdiff1d(self.sample(k), top)
        quantile = self._by_strength(k, rest)[spread(len(rest), n)]
        silent = self.silent(k)
        silent = silent[spread(len(silent), n)]
        kinds = ("top", top), ("quantile", quantile), ("silent", silent)
        return tuple(self._shown(k, s, kind) for kind, found in kinds for s in found.tolist())

    def _shown(self, k: int, sequence: int, kind: str) -> Shown:
        values = self.activations(k, sequence)
        peak = int(np.abs(values).argmax()) if kind != "silent" else None
        activation = 0.0 if peak is None else float(values[peak])
        source = "" if self.corpus.sources is None else self.corpus.sources[sequence]
        return Shown(kind, sequence, peak, activation, values, source)

    def _by_strength(self, k: int, sequences: Ints) -> Ints:
        """Ascending sequences by their peaks, strongest first, ties to the smaller one."""
        return sequences[np.argsort(-np.abs(self.peaks(k)[sequences]), kind="stable")]

    def _kept(self, k: int, kind: int) -> Ints:
        here = self._range("kept_ptr", k)
        chosen = self.state["kept_kind"][here] & kind != 0
        return np.asarray(self.state["kept_sequence"][here][chosen])

    def _range(self, ptr: str, k: int) -> slice:
        begin, end = self.state[ptr][self._checked(k) :][:2].tolist()
        return slice(begin, end)

    def _checked(self, k: int) -> int:
        if not 0 <= k < len(self.ids):
            raise PieFastError(
                f"feature {k} is not there; the features are 0 to {len(self.ids) - 1}"
            )
        return k


def _edge(b: int) -> float:
    """Where a bin begins: the float32 with the bits ``b << 20``, or 2**128 after the last one."""
    edge = float(np.uint32(b << 20).view(np.float32))
    return edge if np.isfinite(edge) else 2.0**128


def _check_lengths(corpus: Corpus, state: Mapping[str, NDArray[Any]]) -> None:
    active = state["kept_kind"] != _SILENT
    sequences, stored = state["kept_sequence"][active], np.diff(state["kept_values_ptr"])[active]
    lengths = np.diff(corpus.ptr)[sequences]
    for i in np.flatnonzero(stored != lengths)[:1]:
        _equal(f"positions of sequence {sequences[i]}", stored[i], lengths[i])


def _check_peaks(corpus: Corpus, state: Mapping[str, NDArray[Any]]) -> None:
    sequences, positions = state["peak_sequence"], state["peak_position"]
    there = positions < np.diff(corpus.ptr)[sequences]
    there[there] = corpus.counted_mask[(corpus.ptr[sequences] + positions)[there]]
    for i in np.flatnonzero(~there)[:1]:
        raise PieFastError(
            f"the state has a peak at position {positions[i]} of sequence {sequences[i]}, "
            "which the corpus does not count"
        )


def _equal(what: str, state: int, corpus: int) -> None:
    if state != corpus:
        raise PieFastError(f"the state has {state} {what}, the corpus and ids have {corpus}")
