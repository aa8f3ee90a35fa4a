"""Scores over a feature dump against numpy, torch, polars, duckdb and numba.

    python benches/bench_score.py [--full]

Ours reads the shards by pread, checks every entry, adds in the fixed order (per prompt, per block
of 256 prompts, blocks in order) and gives the same bytes on any number of threads. numpy, torch and
numba map the same shards and check nothing; polars and duckdb are given their columns in memory.
Peers add in whatever order is fastest for them, so their answers are equal within rounding; the
numpy twin of the tests is equal byte for byte.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pie_fast
from harness import Peer, Suite, absent, suite
from making_dumps import zipf_dump

Dump = pie_fast.FeatureDump


def mapped(dump: Dump) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """prompt_ptr, feature and attribution of each shard, mapped."""
    for shard in dump.manifest["shards"]:
        path = dump.path / shard["file"]
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
        yield tuple(
            np.memmap(path, dtype, "r", start + header[name]["data_offsets"][0], shape)
            for name, dtype, shape in (
                ("prompt_ptr", np.int64, shard["n_prompts"] + 1),
                ("feature", np.uint32, shard["n_active"]),
                ("attribution", np.float32, shard["n_active"]),
            )
        )


def n_ids(dump: Dump) -> int:
    return dump.n_layers * dump.n_features


def numpy_add_at(dump: Dump) -> np.ndarray:
    total = np.zeros(n_ids(dump))
    for _, feature, value in mapped(dump):
        np.add.at(total, feature, value.astype(np.float64))
    return total / dump.n_prompts


def numpy_bincount(dump: Dump) -> np.ndarray:
    total = np.zeros(n_ids(dump))
    for _, feature, value in mapped(dump):
        total += np.bincount(feature, weights=value, minlength=n_ids(dump))
    return total / dump.n_prompts


def run_starts(ptr: np.ndarray, feature: np.ndarray) -> np.ndarray:
    """Where a prompt's entries of a feature begin."""
    new = np.ones(len(feature), bool)
    np.not_equal(feature[1:], feature[:-1], out=new[1:])
    new[ptr[:-1][ptr[:-1] < len(feature)]] = True
    return np.flatnonzero(new)


def numpy_mean_abs(dump: Dump) -> np.ndarray:
    total = np.zeros(n_ids(dump))
    for ptr, feature, value in mapped(dump):
        starts = run_starts(ptr, feature)
        sums = np.abs(np.add.reduceat(value.astype(np.float64), starts))
        np.add.at(total, feature[starts], sums)
    return total / dump.n_prompts


def torch_signed(dump: Dump, add: str) -> np.ndarray:
    import torch

    total = torch.zeros(n_ids(dump), dtype=torch.float64)
    for _, feature, value in mapped(dump):
        ids = torch.from_numpy(feature.astype(np.int64))
        getattr(total, add)(0, ids, torch.from_numpy(value.astype(np.float64)))
    return (total / dump.n_prompts).numpy()


def torch_mean_abs(dump: Dump) -> np.ndarray:
    import torch

    total = torch.zeros(n_ids(dump), dtype=torch.float64)
    for ptr, feature, value in mapped(dump):
        ids = torch.from_numpy(feature.astype(np.int64))
        new = torch.ones(len(ids), dtype=torch.bool)
        new[1:] = ids[1:] != ids[:-1]
        new[torch.from_numpy(ptr[:-1].copy())] = True
        run_of = torch.cumsum(new, 0) - 1
        sums = torch.zeros(int(run_of[-1]) + 1, dtype=torch.float64)
        sums.index_add_(0, run_of, torch.from_numpy(value.astype(np.float64)))
        total.index_add_(0, ids[new], sums.abs())
    return (total / dump.n_prompts).numpy()


def columns(dump: Dump) -> dict[str, np.ndarray]:
    """The whole dump in memory, one row per entry."""
    entries = dump.entries(0, dump.n_prompts)
    prompt = np.repeat(np.arange(dump.n_prompts, dtype=np.int32), np.diff(entries.prompt_ptr))
    return {"p": prompt, "f": entries.feature, "g": entries.attribution}


def dense(dump: Dump, ids: np.ndarray, sums: np.ndarray) -> np.ndarray:
    total = np.zeros(n_ids(dump))
    total[ids] = sums
    return total / dump.n_prompts


def polars_run(dump: Dump, rank_by: str) -> Callable[[], np.ndarray]:
    import polars as pl

    frame = pl.DataFrame(columns(dump))
    value = pl.col("g").cast(pl.Float64).sum()

    def run() -> np.ndarray:
        table = frame.lazy()
        if rank_by == "mean_abs":
            table = table.group_by("p", "f").agg(value.abs())
        found = table.group_by("f").agg(value).collect()
        return dense(dump, found["f"].to_numpy(), found["g"].to_numpy())

    return run


def duckdb_run(dump: Dump, rank_by: str) -> Callable[[], np.ndarray]:
    import duckdb

    connection = duckdb.connect()
    connection.register("arrays", columns(dump))
    connection.execute("create table entries as select * from arrays")
    inner = {
        "signed": "entries",
        "mean_abs": "(select f, abs(sum(g::double)) as g from entries group by p, f)",
    }[rank_by]

    def run() -> np.ndarray:
        query = f"select f, sum(g::double) as g from {inner} group by f"
        found = connection.execute(query).fetchnumpy()
        return dense(dump, found["f"], found["g"])

    return run


def numba_run(dump: Dump, rank_by: str) -> Callable[[], np.ndarray]:
    import numba

    @numba.njit  # type: ignore[untyped-decorator]
    def signed(ptr: Any, feature: Any, value: Any, total: Any) -> None:
        for i in range(len(feature)):
            total[feature[i]] += value[i]

    @numba.njit  # type: ignore[untyped-decorator]
    def mean_abs(ptr: Any, feature: Any, value: Any, total: Any) -> None:
        for p in range(len(ptr) - 1):
            i = ptr[p]
            while i < ptr[p + 1]:
                f, s = feature[i], 0.0
                while i < ptr[p + 1] and feature[i] == f:
                    s += value[i]
                    i += 1
                total[f] += abs(s)

    loop = {"signed": signed, "mean_abs": mean_abs}[rank_by]

    def run() -> np.ndarray:
        total = np.zeros(n_ids(dump))
        for ptr, feature, value in mapped(dump):
            loop(ptr, feature, value, total)
        return total / dump.n_prompts

    return run


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal up to f64 rounding of sums in another order."""
    return np.allclose(ours, theirs, rtol=1e-9, atol=1e-12 * float(np.abs(ours).max()))


def bench(run: Suite, folder: Path, n_entries: int, n_ids: int, gates: dict[str, float]) -> None:
    size = f"T={n_entries:.0e} N={n_ids:.3g}"
    if not any(run.only in f"score {rank_by} {size}" for rank_by in ("signed", "mean_abs")):
        return
    dump = pie_fast.open_dump(zipf_dump(folder / f"{n_entries}-{n_ids}", n_entries, n_ids))
    for rank_by in ("signed", "mean_abs"):
        check_threads(dump, rank_by)
        run.compare(
            f"score {rank_by} {size}",
            partial(dump.score, rank_by),
            {
                "pie_fast, one thread": Peer(partial(dump.score, rank_by, threads=1)),
                **peers(dump, rank_by, gates),
            },
            equal=close,
            target="B",
        )
    run.compare(
        f"open, score, top 400 {size}",
        lambda: pie_fast.open_dump(dump.path).top_k(400)[0],
        {
            "numpy": Peer(
                lambda: np.argsort(-numpy_mean_abs(dump), kind="stable")[:400], gate=gates["numpy"]
            )
        },
        equal=np.array_equal,
        target="B",
    )


def check_threads(dump: Dump, rank_by: str) -> None:
    """The same bytes on any number of threads."""
    one = dump.score(rank_by, threads=1).tobytes()
    for threads in (2, 3):
        if dump.score(rank_by, threads=threads).tobytes() != one:
            raise AssertionError(f"{rank_by}: other bytes on {threads} threads")


def peers(dump: Dump, rank_by: str, gates: dict[str, float]) -> dict[str, Peer]:
    """What computes the same; libraries that are missing are told."""
    floors = FLOORS_10M if gates is GATES_10M else FLOORS_426K
    if rank_by == "signed" and gates is GATES_426K:
        gates = GATES_426K_SIGNED
    bounds = {
        name: {"gate": gate, "floor": floors[name], "note": WHY_LOWER}
        for name, gate in gates.items()
    }
    fast = {**bounds["numpy"], "goal": 12}
    torch_options = {**bounds["torch"], "goal": 20}
    slow = {"goal": 40, "rounds": 3}
    makers: dict[str, tuple[Callable[[], Callable[[], np.ndarray]], dict[str, Any]]]
    if rank_by == "signed":
        makers = {
            "numpy add.at": (lambda: partial(numpy_add_at, dump), fast),
            "numpy bincount": (lambda: partial(numpy_bincount, dump), fast),
            "torch index_add_": (lambda: partial(torch_signed, dump, "index_add_"), torch_options),
            "torch scatter_add_": (
                lambda: partial(torch_signed, dump, "scatter_add_"),
                torch_options,
            ),
        }
    else:
        makers = {
            "numpy reduceat, add.at": (lambda: partial(numpy_mean_abs, dump), fast),
            "torch index_add_ twice": (lambda: partial(torch_mean_abs, dump), torch_options),
        }
    makers["polars"] = (lambda: polars_run(dump, rank_by), {**bounds["polars"], **slow})
    makers["duckdb"] = (lambda: duckdb_run(dump, rank_by), {**bounds["duckdb"], **slow})
    note = {"note": "unchecked, no fixed order"}
    makers["numba loop, one thread"] = (lambda: numba_run(dump, rank_by), note)
    found = {}
    for name, (make, options) in makers.items():
        try:
            found[name] = Peer(make(), **options)
            # A library may be imported in the first call only.
            found[name].run()
        except ImportError as error:
            found[name] = absent(error.name or name, options.get("gate"))
    return found


#: Gates of a plain sum of products at 10^8 entries: what the prototype held.
FLOORS_426K = {"numpy": 4.0, "torch": 6.0, "polars": 10.0, "duckdb": 10.0}
FLOORS_10M = {"numpy": 3.0, "torch": 4.0, "polars": 8.0, "duckdb": None}
WHY_LOWER = "floor: a plain sum at 1e8; ours checks, sums per prompt, fixed order"
#: Half of what was measured on two shared cores, or the prototype's gate where that is lower.
GATES_426K = {"numpy": 2.0, "torch": 3.0, "polars": 5.0, "duckdb": 5.0}
#: A plain sum of f32 is an addition an entry for numpy and torch (1.7 to 2.4 ns), where the
#: prototype's peers also unpacked and multiplied bf16 (9 to 17 ns, ours 1.07). Half of the ratio
#: that is left is 0.8 to 1.1; README.md has the sums.
GATES_426K_SIGNED = {**GATES_426K, "numpy": 1.0, "torch": 1.0}
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
