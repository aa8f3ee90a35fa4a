"""Growth over four to six decades: wall time, CPU time and peak memory, a process a figure.

A process of its own, because the most memory that was ever used is known of processes only. CPU
time stands beside because machines are shared: it does not grow while others hold the cores.

The 10^9 entries are a dump of 10^7 over and over (`merge_dumps`): other prompts by number, the same
entries. Scores are therefore known: those of the small dump.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pie_fast
from bench_select import circulant
from making_dumps import PER_PROMPT, zipf_dump
from pie_fast.dump_merge import merge_dumps

N_IDS = 16_384 * 26

#: prompts of the dump that is repeated: a multiple of the 256 of a block
UNIT_PROMPTS = 5120


@dataclass(frozen=True)
class Spent:
    """What one size cost.

    Attributes:
        wall, cpu: Seconds, the least of the passes; the CPU's by all threads.
        first, first_cpu: Seconds of the first pass, in which shards are compared with their CRC-32.
        peak: Bytes, of the whole process.
        n_bytes: Of the files that were read.
        answer: What must be the same for all ways to it.
    """

    wall: float
    cpu: float
    first: float
    first_cpu: float
    peak: int
    n_bytes: int
    answer: list[float]


def far_dump(folder: Path, n_entries: int) -> Path:
    """About ``n_entries``: below 10^7 drawn, from there on a dump of 10^7 again and again."""
    if n_entries < 10**7:
        return zipf_dump(folder / str(n_entries), n_entries, N_IDS)
    unit = zipf_dump(folder / "unit", UNIT_PROMPTS * PER_PROMPT, N_IDS)
    if n_entries == 10**7:
        return unit
    path = folder / str(n_entries)
    if not (path / "manifest.json").exists():
        n_units = round(n_entries / pie_fast.open_dump(unit).n_active)
        merge_dumps([unit] * n_units, path)
    return path


def spent(what: str, *args: object) -> Spent:
    """Measure in a new process."""
    command = [sys.executable, __file__, what, *map(str, args)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Spent(**json.loads(done.stdout))


def measure(call: Callable[[], Any], rounds: int) -> tuple[list[float], list[float], Any]:
    """Wall times, CPU times, and the answer."""
    walls, cpus = [], []
    answer = None
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return walls, cpus, answer


def main(what: str, place: str, rounds: int) -> None:
    """The process that is measured: score or top of a dump, or a selection from M."""
    n_bytes = 0
    call: Callable[[], Any]
    if what == "select":
        scores, synergy = circulant(int(place))
        call = partial(pie_fast.greedy_select, scores, synergy, 100, check=False)
    else:
        dump = pie_fast.open_dump(place)
        n_bytes = sum(shard["bytes"] for shard in dump.manifest["shards"])
        call = partial(dump.score, "mean_abs")
        if what == "top":
            call = partial(dump.top_k, 1000, "mean_abs")
    walls, cpus, answer = measure(call, rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    values = answer.gains if what == "select" else answer if what == "score" else answer[1]
    kept = np.asarray(values, dtype=np.float64)[:8].tolist()
    print(json.dumps(vars(Spent(min(walls), min(cpus), walls[0], cpus[0], peak, n_bytes, kept))))


def report(title: str, sizes: list[int], found: list[Spent]) -> None:
    """A table, and the exponents of wall and CPU time over all of it and over its last decade."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"\n{title}  [load {load} on {os.cpu_count()} cores]")
    print(
        f"  {'size':>8}{'GB':>9}{'first s':>10}{'its cpu':>10}"
        f"{'wall s':>10}{'cpu s':>10}{'peak MB':>9}"
    )
    for size, one in zip(sizes, found, strict=True):
        print(
            f"  {size:8.0e}{one.n_bytes / 1e9:9.3f}{one.first:10.4g}{one.first_cpu:10.4g}"
            f"{one.wall:10.4g}{one.cpu:10.4g}{one.peak / 1e6:9.0f}",
            flush=True,
        )
    for name in ("wall", "cpu"):
        whole, last = (_exponent(name, sizes, found, begin) for begin in (0, -2))
        print(f"  {name}: exponent {whole:.2f}, last step {last:.2f}", flush=True)


def _exponent(name: str, sizes: list[int], found: list[Spent], begin: int) -> float:
    grown = np.log(getattr(found[-1], name) / max(getattr(found[begin], name), 1e-6))
    return float(grown / np.log(sizes[-1] / sizes[begin]))


def far(folder: Path, largest: int = 10**9) -> None:
    """Scores and top-k from 10^6 to ``largest`` entries, selection from 10^3 to 10^7."""
    sizes = [10**n for n in range(6, 10) if 10**n <= largest]
    dumps = {size: far_dump(folder, size) for size in sizes}
    for what in ("score", "top"):
        found = [spent(what, dumps[size], 5 if size < 10**8 else 2) for size in sizes]
        report(f"{what} over T entries, N={N_IDS:.3g}", sizes, found)
        for one in found[2:]:  # the same entries, averaged over more of the same prompts
            np.testing.assert_allclose(one.answer, found[1].answer, rtol=1e-9)
    for size in sizes[1:]:
        shutil.rmtree(dumps[size])
    budgets = [10**n for n in range(3, 8)]
    report(
        "sparse greedy from M candidates, k=100",
        budgets,
        [spent("select", m, 5 if m < 10**7 else 2) for m in budgets],
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
