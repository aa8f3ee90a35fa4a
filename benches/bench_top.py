"""The best 400 scores beside a partition, a library's top-k and a sorted query.

python benches/bench_top.py            # 10^6 and 10^7 scores
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import pie_fast
from harness import Peer, Suite, absent, suite
from record import installed

Array = np.ndarray


def numpy_top(scores: Array, k: int) -> Array:
    """The best k by partition, ties made right by a stable sort of those above the k-th."""
    kth = np.partition(scores, -k)[-k]
    above = np.flatnonzero(scores >= kth)
    return above[np.argsort(-scores[above], kind="stable")][:k]


def duckdb_top(scores: Array, k: int) -> Callable[[], Array]:
    """`order by limit` over a table that is made before; the ids are a column of it."""
    import duckdb

    connection = duckdb.connect()
    connection.register("arrays", {"id": np.arange(len(scores)), "score": scores})
    connection.execute("create table scores as select * from arrays")
    connection.unregister("arrays")
    query = f"select id from scores order by score desc, id limit {k}"
    return lambda: connection.execute(query).fetchnumpy()["id"]


def bench_top(run: Suite, n: int, k: int = 400) -> None:
    import torch

    title, large = f"top-{k} of {n:.0e} float64", n > 1_000_000
    if run.only not in title:
        return
    scores = np.random.default_rng(0).random(n)
    tensor = torch.from_numpy(scores)
    run.compare(
        title,
        lambda: pie_fast.top_k(scores, k),
        {
            "numpy argpartition": Peer(
                lambda: np.argpartition(-scores, k)[:k],
                gate=15 if large else None,
                goal=50 if large else None,
                same=False,
                note="unordered, ties arbitrary",
            ),
            "numpy partition, ordered": Peer(lambda: numpy_top(scores, k)),
            "torch.topk": Peer(
                lambda: torch.topk(tensor, k).indices.numpy(),
                gate=10 if large else None,
                goal=30 if large else None,
            ),
            "duckdb order by limit": Peer(
                duckdb_top(scores, k), rounds=5, note="from its own table"
            )
            if installed("duckdb")
            else absent("duckdb"),
            "np.sum of the scores": Peer(
                scores.sum,
                gate=1 / 3 if large else None,
                goal=1 / 1.1 if large else None,
                same=False,
                note="only reads the scores",
            ),
        },
        equal=np.array_equal,
        target="B top",
    )


if __name__ == "__main__":
    with suite() as run:
        for n in (1_000_000, 10_000_000):
            bench_top(run, n)
