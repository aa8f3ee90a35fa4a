"""Synergies of all pairs thinned out to the strongest of every row, beside other ways to do it.

    python benches/bench_synergy.py           # 2,000 features
    python benches/bench_synergy.py --full    # also 4,000

Input: joint importances of all pairs and single importances, float64. Output: CSR with the 50
strongest synergies of each row by magnitude, ties to the smaller column.
"""

from __future__ import annotations

import heapq
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from harness import Peer, Suite, absent, suite
from pie_fast import top_synergies
from record import installed

Array = np.ndarray
Csr = tuple[Array, Array, Array]
T = 50


def numpy_dense(joint: Array, single: Array, upper: tuple[Array, Array]) -> Csr:
    m = len(single)
    first, second = upper
    full = np.zeros((m, m), dtype=np.float32)
    full[first, second] = joint - single[first] - single[second]
    full += full.T
    size = np.abs(full)
    # The t-th largest of each row; what is larger stays, equal ones in the order of columns.
    kth = np.partition(size, m - T, axis=1)[:, m - T, None]
    kept = size > kth
    equal = size == kth
    room = T - kept.sum(axis=1, keepdims=True)
    kept |= equal & (np.cumsum(equal, axis=1) <= room)
    rows, columns = np.nonzero(kept)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=m))])
    return indptr, columns.astype(np.int32), full[rows, columns]


def torch_dense(joint: Array, single: Array, upper: tuple[Array, Array]) -> Callable[[], Csr]:
    import torch

    m = len(single)
    first, second = (torch.from_numpy(side) for side in upper)
    joints, singles = torch.from_numpy(joint), torch.from_numpy(single)

    def run() -> Csr:
        full = torch.zeros((m, m), dtype=torch.float32)
        full[first, second] = (joints - singles[first] - singles[second]).float()
        full += full.T.clone()
        columns = torch.topk(full.abs(), T, dim=1).indices.sort(dim=1).values
        values = torch.gather(full, 1, columns)
        indptr = np.arange(m + 1) * T
        return indptr, columns.flatten().to(torch.int32).numpy(), values.flatten().numpy()

    return run


def polars_frame(joint: Array, single: Array, upper: tuple[Array, Array]) -> Callable[[], Any]:
    import polars as pl

    first, second = (side.astype(np.int32) for side in upper)
    table = pl.DataFrame({"i": first, "j": second, "joint": joint})

    def run() -> Any:
        pairs = table.with_columns(
            w=(
                pl.col("joint")
                - pl.lit(pl.Series(single)).gather(pl.col("i"))
                - pl.lit(pl.Series(single)).gather(pl.col("j"))
            ).cast(pl.Float32)
        ).select("i", "j", "w")
        both = pl.concat([pairs, pairs.select(i="j", j="i", w="w")])
        best = both.group_by("i").agg(pl.struct("j", "w").top_k_by(pl.col("w").abs(), T))
        out = best.explode(best.columns[1]).unnest(best.columns[1])
        return out.sort("i", "j")

    return run


def duckdb_window(joint: Array, single: Array, upper: tuple[Array, Array]) -> Callable[[], Any]:
    """A window over both directions of the pair table, ties to the smaller column."""
    import duckdb

    first, second = (side.astype(np.int32) for side in upper)
    connection = duckdb.connect()
    pairs = {"i": first, "j": second, "x": joint}
    singles = {"i": np.arange(len(single), dtype=np.int32), "x": single}
    for name, columns in (("pairs", pairs), ("singles", singles)):
        connection.register("arrays", columns)
        connection.execute(f"create table {name} as select * from arrays")
        connection.unregister("arrays")
    query = f"""
        with w as (
            select p.i, p.j, (p.x - a.x - b.x)::float as w
            from pairs p join singles a on p.i = a.i join singles b on p.j = b.i
        ), both_ways as (select i, j, w from w union all select j, i, w from w)
        select i, j, w from both_ways
        qualify row_number() over (partition by i order by abs(w) desc, j) <= {T}
        order by i, j
    """

    def run() -> Csr:
        found = connection.execute(query).fetchnumpy()
        counts = np.bincount(found["i"], minlength=len(single))
        return np.concatenate([[0], np.cumsum(counts)]), found["j"], found["w"]

    return run


def python_dict(joint: list[float], single: list[float]) -> dict[int, list[tuple[float, int]]]:
    m, place = len(single), 0
    rows: dict[int, list[tuple[float, int, float]]] = {i: [] for i in range(m)}
    for i in range(m):
        for j in range(i + 1, m):
            w = joint[place] - single[i] - single[j]
            place += 1
            for a, b in ((i, j), (j, i)):
                entry = (abs(w), -b, w)
                if len(rows[a]) < T:
                    heapq.heappush(rows[a], entry)
                elif entry > rows[a][0]:
                    heapq.heapreplace(rows[a], entry)
    return {i: sorted((-b, w) for _, b, w in row) for i, row in rows.items()}


def equal(ours: Csr, peer: Any) -> bool:
    _, indices, values = ours
    if isinstance(peer, dict):
        ids = [j for i in range(len(peer)) for j, _ in peer[i]]
        return np.array_equal(indices, ids)
    if not isinstance(peer, tuple):
        return np.array_equal(indices, peer["j"]) and np.array_equal(values, peer["w"])
    return all(np.array_equal(a, b) for a, b in zip(ours, peer, strict=True))


def gated(gate: float | None) -> dict[str, Any]:
    """The target's gate, which is of two cores; on one core (CI) half of it."""
    linux = sys.platform == "linux"
    if gate is None or not linux or len(os.sched_getaffinity(0)) > 1:
        return {"gate": gate}
    return {"gate": gate / 2, "floor": gate, "note": "one core: half of the gate"}


def bench_top(run: Suite) -> None:
    for m in [2000] + ([4000] if run.full else []):
        rng = np.random.default_rng(m)
        single = rng.normal(size=m)
        joint = rng.normal(size=m * (m - 1) // 2)
        upper = np.triu_indices(m, 1)
        peers = {
            "one thread": Peer(lambda j=joint, s=single: top(j, s, threads=1)),
            "numpy dense": Peer(
                lambda j=joint, s=single, u=upper: numpy_dense(j, s, u), **gated(5), goal=25
            ),
            "torch dense": Peer(torch_dense(joint, single, upper), **gated(3.5), goal=15),
        }
        for name, make, gate in (("polars", polars_frame, 6), ("duckdb", duckdb_window, None)):
            peers[name] = (
                Peer(make(joint, single, upper), **gated(gate), goal=gate and 40, rounds=3)
                if installed(name)
                else absent(name, gate)
            )
        if m <= 2000:
            as_lists = joint.tolist(), single.tolist()
            peers["python dict and heapq"] = Peer(
                lambda a=as_lists: python_dict(*a), **gated(100), goal=500, rounds=1
            )
        run.compare(
            f"strongest {T} synergies of each of {m} rows ({len(joint) / 1e6:.1f}M pairs)",
            lambda j=joint, s=single: top(j, s),
            peers,
            equal=equal,
            target="C(i)",
        )


def top(joint: Array, single: Array, threads: int | None = None) -> Csr:
    return top_synergies(joint, single, T, symmetric=False, threads=threads)


if __name__ == "__main__":
    with suite() as run:
        bench_top(run)
