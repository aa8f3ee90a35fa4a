"""How cost grows with candidates, selected ones, entries and threads.

    python benches/bench_growth.py [--full]

The exponent between the first and last size is gated; 1 is linear. Threads are told and not gated:
on shared cores a second thread waits for whoever holds the core. ``--full`` adds scores and top-k
up to 10^9 entries (16 GB in the folder for temporary files) and selection up to 10^7 candidates.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import pie_fast
from bench_select import circulant, dense_problem
from growth_far import far
from harness import Suite, best_of, suite
from making_dumps import zipf_dump

#: Linear is 1; caches that a larger size leaves add to it.
LINEAR = 1.4


def dense(run: Suite) -> None:
    scores, synergy = dense_problem(4000)
    run.growth(
        "growth of dense greedy in k, M=4000",
        lambda k: best_of(lambda: pie_fast.greedy_select(scores, synergy, k)),
        [100, 200, 400, 800],
        LINEAR,
        target="A",
    )
    views = {m: synergy[:m, :m].copy() for m in (500, 1000, 2000, 4000)}
    run.growth(
        "growth of dense greedy in M, k=100",
        lambda m: best_of(
            lambda: pie_fast.greedy_select(scores[:m], views[m], 100, check=False), 20
        ),
        list(views),
        LINEAR,
        target="A",
    )


def sparse(run: Suite) -> None:
    sizes = [100_000, 300_000, 1_000_000] + [10_000_000] * run.full
    problems = {m: circulant(m) for m in sizes}
    run.growth(
        "growth of sparse greedy in M, k=100",
        lambda m: best_of(lambda: pie_fast.greedy_select(*problems[m], 100, check=False), 20),
        sizes,
        LINEAR,
        target="A",
    )


def score(run: Suite, folder: Path) -> None:
    def dump(n_entries: int, n_ids: int) -> pie_fast.FeatureDump:
        return pie_fast.open_dump(zipf_dump(folder / f"{n_entries}-{n_ids}", n_entries, n_ids))

    small = 16_384 * 26
    sizes = [10**5, 10**6, 10**7] + [10**8] * run.full
    dumps = {t: dump(t, small) for t in sizes}
    run.growth(
        "growth of scores in T, N=4.26e+05",
        lambda t: best_of(partial(dumps[t].score, "mean_abs")),
        sizes,
        # From 10^5, where a call's fixed part counts, the exponent is below 1.
        LINEAR,
        target="B",
    )
    by_ids = {n: dump(10**6, n) for n in (small // 16, small, 384_616 * 26)}
    run.growth(
        "growth of scores in N, T=1e+06",
        lambda n: best_of(partial(by_ids[n].score, "mean_abs")),
        list(by_ids),
        LINEAR,
        target="B",
    )
    run.growth(
        "scores by threads, T=1e+07 N=4.26e+05",
        lambda n: best_of(partial(dumps[10**7].score, "mean_abs", threads=n)),
        [1, 2],
        None,
        target="B",
    )


if __name__ == "__main__":
    with suite() as run, tempfile.TemporaryDirectory() as name:
        dense(run)
        sparse(run)
        score(run, Path(name))
        if run.full:
            far(Path(name))
