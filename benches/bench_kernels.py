"""Kernels beside what other libraries do, by pytest-benchmark: one group a kernel.

    pytest benches/bench_kernels.py [-k greedy] [--benchmark-json FILE]

Small inputs, nothing gated, each candidate timed by itself: for looking at one kernel, and for
comparing two commits. The scripts beside interleave the candidates and gate ratios; their peers are
used here. Answers are asserted equal before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench_decoder
import bench_score
import bench_select
import bench_synergy
import bench_top
import pie_fast
from making_dumps import zipf_dump

#: A candidate, and how its answer is compared with ours.
Kernel = tuple[Callable[[], Any], Callable[[], Any], Callable[[Any, Any], bool]]


def greedy(peer: str, _: Path) -> Kernel:
    scores, synergy = bench_select.dense_problem(400)
    k = 50
    make = {
        "numpy": lambda: partial(bench_select.numpy_incremental, scores, synergy, k),
        "torch": lambda: bench_select.torch_incremental(scores, synergy, k),
        "numba": lambda: bench_select.numba_fused(scores, synergy, k),
    }

    def ours() -> np.ndarray:
        return pie_fast.greedy_select(scores, synergy, k).ids

    return ours, make.get(peer, lambda: ours)(), np.array_equal


def top_k(peer: str, _: Path) -> Kernel:
    import torch

    scores, k = np.random.default_rng(0).random(1_000_000), 400
    tensor = torch.from_numpy(scores)
    make = {
        "numpy": lambda: partial(bench_top.numpy_top, scores, k),
        "torch": lambda: lambda: torch.topk(tensor, k).indices.numpy(),
        "duckdb": lambda: bench_top.duckdb_top(scores, k),
    }
    ours = partial(pie_fast.top_k, scores, k)
    return ours, make.get(peer, lambda: ours)(), np.array_equal


def score(peer: str, folder: Path) -> Kernel:
    dump = pie_fast.open_dump(zipf_dump(folder / "dump", 1_000_000, 16_384 * 26))
    make = {
        "numpy": lambda: partial(bench_score.numpy_mean_abs, dump),
        "torch": lambda: partial(bench_score.torch_mean_abs, dump),
        "numba": lambda: bench_score.numba_run(dump, "mean_abs"),
        "polars": lambda: bench_score.polars_run(dump, "mean_abs"),
        "duckdb": lambda: bench_score.duckdb_run(dump, "mean_abs"),
    }
    ours = partial(dump.score, "mean_abs")
    return ours, make.get(peer, lambda: ours)(), bench_score.close


def strongest(peer: str, _: Path) -> Kernel:
    m, rng = 400, np.random.default_rng(0)
    pairs = rng.normal(size=m * (m - 1) // 2), rng.normal(size=m)
    upper = np.triu_indices(m, 1)
    make = {
        "numpy": lambda: partial(bench_synergy.numpy_dense, *pairs, upper),
        "torch": lambda: bench_synergy.torch_dense(*pairs, upper),
        "polars": lambda: bench_synergy.polars_frame(*pairs, upper),
        "duckdb": lambda: bench_synergy.duckdb_window(*pairs, upper),
    }
    ours = partial(bench_synergy.top, *pairs)
    return ours, make.get(peer, lambda: ours)(), bench_synergy.equal


def redundancy(peer: str, folder: Path) -> Kernel:
    case = bench_decoder.make_case(folder / "clt", (2048, 4, 256), 200)
    make = {
        "numpy": lambda: partial(bench_decoder.numpy_cosines, case),
        "torch": lambda: partial(bench_decoder.torch_cosines, case),
    }
    ours = partial(bench_decoder.ours_cosines, case)
    return ours, make.get(peer, lambda: ours)(), bench_decoder.close


#: kernel -> the libraries that do the same
PEERS: dict[Callable[[str, Path], Kernel], tuple[str, ...]] = {
    greedy: ("numpy", "torch", "numba"),
    top_k: ("numpy", "torch", "duckdb"),
    score: ("numpy", "torch", "numba", "polars", "duckdb"),
    strongest: ("numpy", "torch", "polars", "duckdb"),
    redundancy: ("numpy", "torch"),
}
CASES = [(kernel, name) for kernel, peers in PEERS.items() for name in ("pie_fast", *peers)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.mark.parametrize(
    ("kernel", "name"), CASES, ids=[f"{kernel.__name__}-{name}" for kernel, name in CASES]
)
def test_kernel(
    kernel: Callable[[str, Path], Kernel], name: str, folder: Path, benchmark: Any
) -> None:
    if pie_fast._native.build_profile == "debug":
        pytest.fail("a debug build says nothing about speed; build with --release")
    pytest.importorskip(name, reason=f"{name} is not installed")
    ours, candidate, equal = kernel(name, folder)
    assert equal(ours(), candidate())
    benchmark.group = kernel.__name__
    benchmark(candidate)
