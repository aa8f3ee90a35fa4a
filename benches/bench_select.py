"""Greedy selection beside the ways one would write them without pie_fast.

    python benches/bench_select.py            # CI sizes, gates fail the run
    python benches/bench_select.py --full     # also 30,000 dense and 10^7 sparse candidates

Every peer of a selection must select the same candidates in the same order. The submodular
libraries optimise something else (graph cut on the clipped matrix with a unit diagonal, no base
score, no division); they stand for the speed of general tools, and their answers are not compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pie_fast
from harness import Peer, Suite, absent, suite
from record import installed

Array = np.ndarray


# -- the peers of dense selection ------------------------------------------------------------------


def literal(scores: dict[int, float], synergy: dict[tuple[int, int], float], k: int) -> list[int]:
    """The rule as it is written: plain Python over dicts."""
    chosen: list[int] = []
    while len(chosen) < k:
        best, most = -1, -float("inf")
        for f in scores:
            if f in chosen:
                continue
            total = 0.0
            for s in chosen:
                total += synergy[f, s]
            value = scores[f] + total / max(len(chosen), 1)
            if value > most:
                best, most = f, value
        chosen.append(best)
    return chosen


def numpy_incremental(scores: Array, synergy: Array, k: int) -> Array:
    """A running sum per candidate, one row added per step."""
    score = scores.astype(np.float64)
    bonus, value = np.zeros_like(score), np.empty_like(score)
    ids = np.empty(k, dtype=np.int64)
    for n in range(k):
        np.divide(bonus, max(n, 1), out=value)
        value += score
        f = ids[n] = value.argmax()
        score[f] = -np.inf
        bonus += synergy[f]
    return ids


def numpy_resum(scores: Array, synergy: Array, k: int) -> Array:
    """Sums over the selected anew in every step (in another order: not compared)."""
    score = scores.astype(np.float64)
    chosen: list[int] = []
    for _ in range(k):
        value = score + synergy[:, chosen].sum(axis=1, dtype=np.float64) / max(len(chosen), 1)
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
    return np.array(chosen)


def torch_incremental(scores: Array, synergy: Array, k: int) -> Callable[[], Array]:
    import torch

    base, matrix = torch.from_numpy(scores).double(), torch.from_numpy(synergy)

    def run() -> Array:
        score, bonus = base.clone(), torch.zeros_like(base)
        ids = torch.empty(k, dtype=torch.int64)
        for n in range(k):
            f = torch.argmax(score + bonus / max(n, 1))
            ids[n] = f
            score[f] = -torch.inf
            bonus += matrix[f]
        return ids.numpy()

    return run


def numba_fused(scores: Array, synergy: Array, k: int) -> Callable[[], Array]:
    import numba

    @numba.njit(cache=False)
    def select(scores: Array, synergy: Array, k: int) -> Array:
        m = len(scores)
        score, bonus = scores.astype(np.float64), np.zeros(m)
        ids = np.empty(k, dtype=np.int64)
        for n in range(k):
            best, most = -1, -np.inf
            for f in range(m):
                if n:
                    bonus[f] += synergy[ids[n - 1], f]
                value = score[f] + bonus[f] / max(n, 1)
                if value > most:
                    best, most = f, value
            ids[n] = best
            score[best] = -np.inf
        return ids

    return lambda: select(scores, synergy, k)


def library_peers(synergy: Array, k: int) -> dict[str, Peer]:
    """apricot and submodlib where they are installed: another objective, answers not compared."""
    kernel = np.maximum(synergy, 0).astype(np.float64)
    np.fill_diagonal(kernel, 1)
    peers = {}
    note = "graph cut, not the same objective"
    if installed("apricot"):
        from apricot import GraphCutSelection

        def apricot() -> Any:
            return GraphCutSelection(k, metric="precomputed", optimizer="lazy").fit(kernel)

        peers["apricot GraphCut lazy"] = Peer(apricot, note=note, same=False, rounds=3)
    else:
        peers["apricot GraphCut lazy"] = absent("apricot-select")
    if installed("submodlib"):
        from submodlib import GraphCutFunction

        cut = GraphCutFunction(
            n=len(kernel),
            mode="dense",
            lambdaVal=0.5,
            separate_rep=False,
            ggsijs=kernel,
        )

        def submodlib() -> Any:
            return cut.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)

        peers["submodlib GraphCut LazyGreedy"] = Peer(
            submodlib, note=f"{note}; kernel built outside", same=False, rounds=3
        )
    else:
        peers["submodlib GraphCut LazyGreedy"] = absent("submodlib-py")
    return peers


def dense_problem(m: int) -> tuple[Array, Array]:
    """Normal scores and a symmetric normal matrix, made without a second copy of it."""
    rng = np.random.default_rng(m)
    synergy = rng.standard_normal((m, m), dtype=np.float32)
    for start in range(0, m, 512):
        rows = slice(start, start + 512)
        synergy[rows, : start + 512] = synergy[: start + 512, rows].T.copy()
        corner = synergy[rows, rows]
        synergy[rows, rows] = np.triu(corner) + np.triu(corner, 1).T
    return rng.normal(size=m), synergy


def same_ids(ours: Any, peer: Any) -> bool:
    return np.array_equal(getattr(ours, "ids", ours), peer)


def bench_dense(run: Suite) -> None:
    scores, synergy = dense_problem(400)
    as_dict = dict(enumerate(scores.tolist()))
    pairs = {(f, s): float(synergy[f, s]) for f in range(400) for s in range(400)}
    run.compare(
        "greedy dense M=400 k=100",
        lambda: pie_fast.greedy_select(scores, synergy, 100),
        {
            "literal Python": Peer(
                lambda: literal(as_dict, pairs, 100), gate=10_000, goal=50_000, rounds=2
            ),
            "numpy incremental": Peer(
                lambda: numpy_incremental(scores, synergy, 100), gate=10, goal=25
            ),
            "torch incremental": Peer(torch_incremental(scores, synergy, 100), gate=25, goal=80),
            **numba_peer(scores, synergy, 100),
            "numpy re-sum": Peer(lambda: numpy_resum(scores, synergy, 100), same=False),
            **library_peers(synergy, 100),
        },
        equal=same_ids,
        target="A",
    )
    sizes = [(2000, 100), (2000, 800)] + ([(10_000, 800), (30_000, 800)] if run.full else [])
    for m, k in sizes:
        scores, synergy = dense_problem(m)
        small = m <= 2000
        run.compare(
            f"greedy dense M={m} k={k}",
            lambda s=scores, w=synergy, k=k: pie_fast.greedy_select(s, w, k),
            {
                "numpy incremental": Peer(
                    lambda s=scores, w=synergy, k=k: numpy_incremental(s, w, k),
                    gate=5 if small else 2.5,
                    goal=12 if small else 6,
                ),
                "torch incremental": Peer(
                    torch_incremental(scores, synergy, k),
                    gate=12 if small else 4,
                    goal=30 if small else 11,
                ),
                **numba_peer(scores, synergy, k, 2.5 if small else None, 5 if small else None),
            },
            equal=same_ids,
            target="A",
        )


def numba_peer(
    scores: Array, synergy: Array, k: int, gate: float | None = None, goal: float | None = None
) -> dict[str, Peer]:
    if not installed("numba"):
        return {"numba fused": absent("numba", gate)}
    return {"numba fused": Peer(numba_fused(scores, synergy, k), gate=gate, goal=goal)}


# -- the peers of sparse selection -----------------------------------------------------------------


def circulant(m: int, half: int = 25) -> tuple[Array, tuple[Array, Array, Array]]:
    """Scores, and a symmetric graph of 2 * half neighbours at fixed steps with hashed weights."""
    rng = np.random.default_rng(m)
    steps = np.unique(rng.integers(1, m // 2, half))
    steps = np.concatenate([steps, m - steps])
    columns = np.empty((m, len(steps)), dtype=np.int32)
    values = np.empty((m, len(steps)), dtype=np.float32)
    for start in range(0, m, 1 << 18):
        rows = np.arange(start, min(start + (1 << 18), m))[:, None]
        others = np.sort((rows + steps) % m, axis=1)
        columns[start : start + len(rows)] = others
        low, high = np.minimum(rows, others), np.maximum(rows, others)
        mixed = (low * 0x9E3779B97F4A7C1 ^ high * 0x2B2AE3D27D4EB4F) >> 8 & 0xFFFFFF
        values[start : start + len(rows)] = mixed / 2**22 - 2
    indptr = np.arange(m + 1, dtype=np.int64) * len(steps)
    return rng.random(m), (indptr, columns.ravel(), values.ravel())


def numpy_full(scores: Array, csr: tuple[Array, Array, Array], k: int) -> Array:
    """All candidates looked at in every step."""
    indptr, indices, values = csr
    score = scores.copy()
    bonus, value = np.zeros_like(score), np.empty_like(score)
    ids = np.empty(k, dtype=np.int64)
    for n in range(k):
        np.divide(bonus, max(n, 1), out=value)
        value += score
        f = ids[n] = value.argmax()
        score[f] = -np.inf
        row = slice(indptr[f], indptr[f + 1])
        bonus[indices[row]] += values[row]
    return ids


def numpy_touched(scores: Array, csr: tuple[Array, Array, Array], k: int) -> Array:
    """The idea of pie_fast in numpy: untouched ones wait in score order, touched are rescanned.

    Rows have at most 64 entries here.
    """
    indptr, indices, values = csr
    listed = np.argpartition(-scores, 2 * k)[: 2 * k]
    listed = listed[np.lexsort((listed, -scores[listed]))].tolist()
    bonus = np.zeros_like(scores)
    moved = np.zeros(len(scores), dtype=bool)
    touched, n_touched, cursor = np.empty(64 * k, dtype=np.int32), 0, 0
    taken: list[int] = []
    for n in range(k):
        while moved[listed[cursor]]:
            cursor += 1
        best, most = listed[cursor], scores[listed[cursor]]
        if n_touched:
            some = touched[:n_touched]
            value = scores[some] + bonus[some] / max(n, 1)
            # The bonus of a selected one is minus infinity.
            top = value.max()
            first = int(some[value == top].min())
            if top > most or (top == most and first < best):
                best = first
        taken.append(best)
        row = slice(indptr[best], indptr[best + 1])
        columns = indices[row]
        new = columns[~moved[columns]]
        touched[n_touched : n_touched + len(new)] = new
        n_touched += len(new)
        moved[columns] = True
        bonus[columns] += values[row]
        moved[best] = True
        bonus[best] = -np.inf
    return np.array(taken)


def bench_sparse(run: Suite) -> None:
    for m in [1_000_000] + ([10_000_000] if run.full else []):
        scores, csr = circulant(m)
        k = 100
        large = m > 1_000_000
        run.compare(
            f"greedy sparse M={m:.0e} k={k}",
            lambda s=scores, w=csr, k=k: pie_fast.greedy_select(s, w, k),
            {
                "numpy full rescan": Peer(
                    lambda s=scores, w=csr, k=k: numpy_full(s, w, k),
                    gate=None if large else 100,
                    goal=None if large else 500,
                    rounds=3,
                ),
                "numpy, touched only": Peer(
                    lambda s=scores, w=csr, k=k: numpy_touched(s, w, k),
                    gate=None if large else 20,
                    goal=None if large else 100,
                ),
                "np.sum of the scores": Peer(
                    scores.sum,
                    gate=1 / 3 if large else None,
                    goal=1 / 1.2 if large else None,
                    note="only reads the scores",
                    same=False,
                ),
            },
            equal=same_ids,
            target="A",
        )


# -- many selections -------------------------------------------------------------------------------


def bench_many(run: Suite) -> None:
    scores, synergy = dense_problem(1000)
    rows = scores + np.random.default_rng(1).normal(size=(64, 1000)) / 10
    run.compare(
        "64 bootstraps of greedy dense M=1000 k=100",
        lambda: pie_fast.greedy_select_many(rows, synergy, 100),
        {
            "pie_fast, one thread": Peer(
                lambda: pie_fast.greedy_select_many(rows, synergy, 100, threads=1)
            ),
            "numpy incremental, row by row": Peer(
                lambda: np.stack([numpy_incremental(row, synergy, 100) for row in rows]),
                gate=5,
                rounds=5,
            ),
        },
        equal=np.array_equal,
        target="A",
    )


if __name__ == "__main__":
    with suite() as run:
        bench_dense(run)
        bench_sparse(run)
        bench_many(run)
