"""Scores over a feature dump against numpy, torch, polars, duckdb and numba.

    python benches/bench_score.py [--full]

Ours reads the shards, checks every entry, adds in the fixed order (per prompt, per block of 256
prompts, blocks in order) and gives the same bytes on any number of threads. The peers are given
their columns in memory, unchecked, and add in whatever order is fastest for them, so their answers
are equal within rounding; the numpy twin of the tests is equal byte for byte.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pie_fast
from harness import Peer, Suite, suite
from making_dumps import zipf_dump


@dataclass
class Columns:
    """A dump in memory, as the peers like it."""

    n_ids: int
    n_prompts: int
    prompt: np.ndarray
    feature: np.ndarray
    value: np.ndarray

    @classmethod
    def read(cls, dump: pie_fast.FeatureDump) -> Columns:
        entries = dump.entries(0, dump.n_prompts)
        prompt = np.repeat(np.arange(dump.n_prompts, dtype=np.int32), np.diff(entries.prompt_ptr))
        feature = entries.feature.astype(np.int64)
        n_ids = dump.n_layers * dump.n_features
        return cls(n_ids, dump.n_prompts, prompt, feature, entries.attribution)


def numpy_add_at(c: Columns) -> np.ndarray:
    total = np.zeros(c.n_ids)
    np.add.at(total, c.feature, c.value.astype(np.float64))
    return total / c.n_prompts


def numpy_bincount(c: Columns) -> np.ndarray:
    return np.bincount(c.feature, weights=c.value, minlength=c.n_ids) / c.n_prompts


def runs(c: Columns) -> np.ndarray:
    """Where a prompt's entries of a feature begin."""
    new = np.ones(len(c.feature), bool)
    new[1:] = (c.feature[1:] != c.feature[:-1]) | (c.prompt[1:] != c.prompt[:-1])
    return np.flatnonzero(new)


def numpy_mean_abs(c: Columns) -> np.ndarray:
    starts = runs(c)
    sums = np.abs(np.add.reduceat(c.value.astype(np.float64), starts))
    total = np.zeros(c.n_ids)
    np.add.at(total, c.feature[starts], sums)
    return total / c.n_prompts


def torch_signed(c: Columns, add: str) -> Callable[[], np.ndarray]:
    import torch

    feature = torch.from_numpy(c.feature)
    value = torch.from_numpy(c.value)

    def run() -> np.ndarray:
        total = torch.zeros(c.n_ids, dtype=torch.float64)
        getattr(total, add)(0, feature, value.double())
        return (total / c.n_prompts).numpy()

    return run


def torch_mean_abs(c: Columns) -> Callable[[], np.ndarray]:
    import torch

    feature, prompt = torch.from_numpy(c.feature), torch.from_numpy(c.prompt)
    value = torch.from_numpy(c.value)

    def run() -> np.ndarray:
        new = torch.ones(len(feature), dtype=torch.bool)
        new[1:] = (feature[1:] != feature[:-1]) | (prompt[1:] != prompt[:-1])
        run_of = torch.cumsum(new, 0) - 1
        sums = torch.zeros(int(run_of[-1]) + 1, dtype=torch.float64)
        sums.index_add_(0, run_of, value.double())
        total = torch.zeros(c.n_ids, dtype=torch.float64)
        total.index_add_(0, feature[new], sums.abs())
        return (total / c.n_prompts).numpy()

    return run


def polars_run(c: Columns, rank_by: str) -> Callable[[], np.ndarray]:
    import polars as pl

    columns = {"p": c.prompt, "f": c.feature.astype(np.uint32), "g": c.value}
    frame = pl.DataFrame(columns)
    value = pl.col("g").cast(pl.Float64).sum()

    def run() -> np.ndarray:
        table = frame.lazy()
        if rank_by == "mean_abs":
            table = table.group_by("p", "f").agg(value.abs())
        found = table.group_by("f").agg(value).collect()
        total = np.zeros(c.n_ids)
        total[found["f"].to_numpy()] = found["g"].to_numpy()
        return total / c.n_prompts

    return run


def duckdb_run(c: Columns, rank_by: str) -> Callable[[], np.ndarray]:
    import duckdb

    connection = duckdb.connect()
    entries = {"p": c.prompt, "f": c.feature.astype(np.uint32), "g": c.value}
    connection.register("arrays", entries)
    connection.execute("create table entries as select * from arrays")
    inner = {
        "signed": "entries",
        "mean_abs": "(select f, abs(sum(g::double)) as g from entries group by p, f)",
    }[rank_by]

    def run() -> np.ndarray:
        query = f"select f, sum(g::double) as g from {inner} group by f"
        found = connection.execute(query).fetchnumpy()
        total = np.zeros(c.n_ids)
        total[found["f"]] = found["g"]
        return total / c.n_prompts

    return run


def numba_run(c: Columns, rank_by: str) -> Callable[[], np.ndarray]:
    import numba

    @numba.njit  # type: ignore[untyped-decorator]
    def signed(feature: Any, value: Any, prompt: Any, total: Any) -> None:
        for i in range(len(feature)):
            total[feature[i]] += value[i]

    @numba.njit  # type: ignore[untyped-decorator]
    def mean_abs(feature: Any, value: Any, prompt: Any, total: Any) -> None:
        i = 0
        while i < len(feature):
            f, p, s = feature[i], prompt[i], 0.0
            while i < len(feature) and feature[i] == f and prompt[i] == p:
                s += value[i]
                i += 1
            total[f] += abs(s)

    loop = {"signed": signed, "mean_abs": mean_abs}[rank_by]

    def run() -> np.ndarray:
        total = np.zeros(c.n_ids)
        loop(c.feature, c.value, c.prompt, total)
        return total / c.n_prompts

    return run


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal up to f64 rounding of sums in another order."""
    return np.allclose(ours, theirs, rtol=1e-9, atol=1e-12 * float(np.abs(ours).max()))


def bench(run: Suite, folder: Path, n_entries: int, n_ids: int, gates: dict[str, float]) -> None:
    size = f"T={n_entries:.0e} N={n_ids:.3g}"
    if not any(run.only in f"score {rank_by} {size}" for rank_by in ("signed", "mean_abs")):
        return
    dump = pie_fast.open_dump(zipf_dump(folder / f"{n_entries}-{n_ids}", n_entries, n_ids))
    c = Columns.read(dump)
    for rank_by in ("signed", "mean_abs"):
        check_threads(dump, rank_by)
        run.compare(
            f"score {rank_by} {size}",
            partial(dump.score, rank_by),
            {
                "pie_fast, one thread": Peer(partial(dump.score, rank_by, threads=1)),
                **peers(c, rank_by, gates),
            },
            equal=close,
        )
    run.compare(
        f"open, score, top 400 {size}",
        lambda: pie_fast.open_dump(dump.path).top_k(400)[0],
        {
            "numpy": Peer(
                lambda: np.argsort(-numpy_mean_abs(c), kind="stable")[:400], gate=gates["numpy"]
            )
        },
        equal=np.array_equal,
    )


def check_threads(dump: pie_fast.FeatureDump, rank_by: str) -> None:
    """The same bytes on any number of threads."""
    one = dump.score(rank_by, threads=1).tobytes()
    for threads in (2, 3):
        if dump.score(rank_by, threads=threads).tobytes() != one:
            raise AssertionError(f"{rank_by}: other bytes on {threads} threads")


def peers(c: Columns, rank_by: str, gates: dict[str, float]) -> dict[str, Peer]:
    """What computes the same from the columns in memory; libraries that are missing are told."""
    fast = {"goal": 12, "gate": gates["numpy"]}
    torch_options = {"goal": 20, "gate": gates["torch"]}
    slow = {"goal": 40, "rounds": 3}
    makers: dict[str, tuple[Callable[[], Callable[[], np.ndarray]], dict[str, Any]]]
    if rank_by == "signed":
        makers = {
            "numpy add.at": (lambda: partial(numpy_add_at, c), fast),
            "numpy bincount": (lambda: partial(numpy_bincount, c), fast),
            "torch index_add_": (lambda: torch_signed(c, "index_add_"), torch_options),
            "torch scatter_add_": (lambda: torch_signed(c, "scatter_add_"), torch_options),
        }
    else:
        makers = {
            "numpy reduceat, add.at": (lambda: partial(numpy_mean_abs, c), fast),
            "torch index_add_ twice": (lambda: torch_mean_abs(c), torch_options),
        }
    makers["polars"] = (lambda: polars_run(c, rank_by), {**slow, "gate": gates["polars"]})
    makers["duckdb"] = (lambda: duckdb_run(c, rank_by), {**slow, "gate": gates["duckdb"]})
    note = {"note": "unchecked, no fixed order: what order and checks cost"}
    makers["numba loop, one thread"] = (lambda: numba_run(c, rank_by), note)
    found = {}
    for name, (make, options) in makers.items():
        try:
            found[name] = Peer(make(), **options)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


#: Half of what was measured on two shared cores, or the prototype's gate where that is lower.
GATES_426K = {"numpy": 2.0, "torch": 3.0, "polars": 5.0, "duckdb": 5.0}
GATES_10M = {"numpy": 1.5, "torch": 2.0, "polars": 4.0, "duckdb": 3.0}


def main() -> None:
    with suite() as run, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench(run, folder, 10**6, 16_384 * 26, GATES_426K)
        bench(run, folder, 10**7, 16_384 * 26, GATES_426K)
        bench(run, folder, 10**7, 384_616 * 26, GATES_10M)
        if run.full:
            bench(run, folder, 10**8, 16_384 * 26, GATES_426K)
            bench(run, folder, 10**8, 384_616 * 26, GATES_10M)


if __name__ == "__main__":
    main()
