"""The streaming collector of contexts beside what one would write with numpy or torch.

    python benches/bench_contexts.py [--full]

Activations come in batches, as a model gives them. The answer that is compared: of each feature the
20 sequences with the strongest peaks. The collector keeps, in the same pass, what ``numpy, counts
too`` adds (firings, pairs, histogram), and also every peak, two samples and the activations at all
positions of what it keeps; nobody else does these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from harness import Peer, Suite, suite
from pie_fast._native import ContextCollector

N_TOP = 20
BATCH = 16_384  # positions, about

Top = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Batch:
    """Sequences ``first``, ``first + 1``, ... as the collector takes them."""

    first: int
    ptr: np.ndarray
    values: np.ndarray
    counted: np.ndarray


def make_batches(n_tokens: int, k: int, density: float) -> list[Batch]:
    """Ragged sequences; a feature fires at ``density`` of the positions; the first never counts."""
    rng = np.random.default_rng(0)
    batches, first = [], 0
    for _ in range(n_tokens // BATCH):
        lengths = rng.integers(16, 113, BATCH // 64)
        ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = np.abs(rng.standard_normal((ptr[-1], k), dtype=np.float32))
        values[rng.random(values.shape, dtype=np.float32) >= density] = 0
        counted = np.ones(ptr[-1], dtype=bool)
        counted[ptr[:-1]] = False
        batches.append(Batch(first, ptr, values, counted))
        first += len(lengths)
    return batches


def ours(batches: list[Batch], k: int, threads: int | None = None) -> Top:
    """Collect all, then read the strongest out of the state."""
    collector = ContextCollector(k, n_top=N_TOP)
    for batch in batches:
        collector.add(batch.first, batch.ptr, batch.values, batch.counted, threads=threads)
    state = collector.state()
    top = np.zeros((N_TOP, k), np.int64), np.zeros((N_TOP, k), np.float32)
    for i in range(k):
        peaks = slice(*state["peak_ptr"][i : i + 2])
        kept = slice(*state["kept_ptr"][i : i + 2])
        sequences = state["kept_sequence"][kept][state["kept_kind"][kept] & 1 == 1]
        at = np.searchsorted(state["peak_sequence"][peaks], sequences)
        values = np.abs(state["peak_value"][peaks][at])
        order = np.argsort(-values, kind="stable")
        top[0][:, i], top[1][:, i] = sequences[order], values[order]
    return top


def numpy_top(batches: list[Batch], k: int) -> Top:
    """The best of each batch by argpartition, joined with the best so far."""
    ids, best = np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
    for batch in batches:
        sizes = np.abs(batch.values)
        sizes[~batch.counted] = 0
        peaks = np.maximum.reduceat(sizes, batch.ptr[:-1], axis=0)
        some = np.argpartition(-peaks, N_TOP, axis=0)[:N_TOP]
        ids = np.concatenate([ids, batch.first + some])
        best = np.concatenate([best, np.take_along_axis(peaks, some, axis=0)])
        order = np.argsort(-best, axis=0, kind="stable")[:N_TOP]
        ids, best = (np.take_along_axis(x, order, axis=0) for x in (ids, best))
    return ids, best


def numpy_counts(batches: list[Batch], k: int) -> Top:
    """The same, and the counts."""
    pairs, histogram = np.zeros((k, k)), np.zeros((k, 2040), np.int64)
    for batch in batches:
        fires = (batch.values != 0) & batch.counted[:, None]
        pairs += fires.T.astype(np.float32) @ fires.astype(np.float32)
        row, column = np.nonzero(fires)
        bins = np.abs(batch.values[row, column]).view(np.uint32) >> 20
        cell = column * 2040 + bins
        histogram += np.bincount(cell, minlength=k * 2040).reshape(k, 2040)
    if pairs.trace() != histogram.sum():
        raise AssertionError("the counts of numpy contradict each other")
    return numpy_top(batches, k)


def torch_top(batches: list[Batch], k: int) -> Top:
    """The best of each batch by topk, joined with the best so far."""
    import torch

    ids, best = torch.zeros((0, k), dtype=torch.int64), torch.zeros((0, k))
    for batch in batches:
        sizes = torch.from_numpy(batch.values).abs()
        sizes[~torch.from_numpy(batch.counted)] = 0
        lengths = torch.from_numpy(np.diff(batch.ptr))
        peaks = torch.segment_reduce(sizes, "max", lengths=lengths, axis=0)
        new = peaks.topk(N_TOP, dim=0)
        ids, best = torch.cat([ids, batch.first + new.indices]), torch.cat([best, new.values])
        best, order = best.topk(min(N_TOP, len(best)), dim=0)
        ids = ids.gather(0, order)
    return ids.numpy(), best.numpy()


def equal(ours: Top, peer: Top) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, peer, strict=True))


def bench(run: Suite, n_tokens: int, k: int, density: float) -> None:
    title = f"contexts of K={k} over {n_tokens:.0e} positions, {density:.0%} active"
    if run.only not in title:
        return
    batches = make_batches(n_tokens, k, density)
    note = "only the strongest sequences"
    run.compare(
        title,
        partial(ours, batches, k),
        {
            "pie_fast, one thread": Peer(partial(ours, batches, k, 1)),
            "numpy argpartition": Peer(partial(numpy_top, batches, k), note=note),
            "numpy, counts too": Peer(
                partial(numpy_counts, batches, k), gate=1.5, note="and firings, pairs, histogram"
            ),
            "torch.topk": Peer(partial(torch_top, batches, k), gate=0.4, note=note),
        },
        equal=equal,
        target="I contexts",
    )


if __name__ == "__main__":
    with suite() as run:
        for density in (0.02, 0.2):
            bench(run, 200_000, 50, density)
        if run.full:
            bench(run, 2_000_000, 400, 0.02)
