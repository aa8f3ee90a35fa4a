"""Compare ways to the same answer in one process, and fail when a promise is missed.

Candidates are interleaved: every round runs each of them for a moment (short ones several times, so
that each is met with warm caches), and a slow minute of the machine meets all. Answers are asserted
equal before a figure is printed. Only ratios (peer / ours) of the minima of one run are gated,
never times; a gate that is missed is measured once more.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pie_fast import _native

OURS = "pie_fast"


@dataclass
class Peer:
    """One way to the answer.

    Attributes:
        run: Computes it.
        gate: The ratio to ours below which the run fails; None: only told.
        goal: The ratio we are going for; printed.
        note: What is not the same about it (another objective, other rounding ...).
        same: Whether its answer must equal ours.
        rounds: At most so many rounds, for what is slow.
    """

    run: Callable[[], Any]
    gate: float | None = None
    goal: float | None = None
    note: str = ""
    same: bool = True
    rounds: int = 1_000_000


@dataclass
class Row:
    """Times of one candidate, in seconds."""

    name: str
    times: list[float]
    peer: Peer

    @property
    def best(self) -> float:
        return min(self.times)

    @property
    def median(self) -> float:
        return statistics.median(self.times)


@dataclass
class Suite:
    """All comparisons of one run and the gates that were missed."""

    rounds: int = 5
    only: str = ""
    full: bool = False
    failures: list[str] = field(default_factory=list)
    n_gates: int = 0

    def compare(
        self,
        title: str,
        ours: Callable[[], Any],
        peers: dict[str, Peer],
        *,
        equal: Callable[[Any, Any], bool],
        seconds: float = 1.0,
    ) -> None:
        """Measure, assert equal answers, print a table, check the gates.

        Args:
            title: What is computed, with its sizes.
            ours: The call that is promised to be fast.
            peers: What it is compared to.
            equal: Whether an answer of a peer is ours.
            seconds: Rounds go on for about so long, and for at least ``self.rounds``.
        """
        if self.only not in title:
            return
        answer = ours()
        for name, peer in peers.items():
            if peer.same and not equal(answer, peer.run()):
                raise AssertionError(f"{title}: the answer of {name} is another one")
        for attempt in (1, 2):
            rows = self._measure({OURS: Peer(ours), **peers}, seconds)
            missed = self._missed(rows)
            if not missed or attempt == 2:
                break
            print(f"{title}: measured again, {', '.join(missed)}", flush=True)
        self._print(title, rows)
        self.n_gates += sum(peer.gate is not None for peer in peers.values())
        self.failures += [f"{title}: {text}" for text in missed]

    def _measure(self, candidates: dict[str, Peer], seconds: float) -> list[Row]:
        rows = [Row(name, [], peer) for name, peer in candidates.items()]
        start = time.perf_counter()
        done = 0
        while done < self.rounds or time.perf_counter() - start < seconds:
            for row in rows:
                if done < row.peer.rounds:
                    row.times += burst(row.peer.run)
            done += 1
        return rows

    def _missed(self, rows: list[Row]) -> list[str]:
        ours, texts = rows[0].best, []
        for row in rows[1:]:
            ratio, gate = row.best / ours, row.peer.gate
            if gate is not None and ratio < gate:
                texts.append(f"{ratio:.3g}x of {row.name}, the gate is {gate:g}x")
        return texts

    def _print(self, title: str, rows: list[Row]) -> None:
        ours = rows[0]
        print(f"\n{title}  [{len(ours.times)} runs of ours]")
        print(f"  {'':34}{'min ms':>10}{'median':>10}{'peer/ours':>11}{'gate':>8}{'goal':>8}")
        for row in rows:
            peer = row.peer
            ratio = "" if row is ours else f"{row.best / ours.best:.4g}x"
            gate, goal = (f"{x:g}x" if x else "" for x in (peer.gate, peer.goal))
            print(
                f"  {row.name:34}{row.best * 1e3:10.4g}{row.median * 1e3:10.4g}"
                f"{ratio:>11}{gate:>8}{goal:>8}  {peer.note}",
                flush=True,
            )

    def growth(
        self, title: str, cost: Callable[[int], float], sizes: list[int], most: float
    ) -> None:
        """Fail when time grows faster than ``size ** most`` between the first and last size."""
        if self.only not in title:
            return
        self.n_gates += 1
        for attempt in (1, 2):
            times = [cost(size) for size in sizes]
            exponent = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
            if exponent <= most or attempt == 2:
                break
        curve = ", ".join(f"{n}: {t * 1e3:.3g} ms" for n, t in zip(sizes, times, strict=True))
        print(f"\n{title}: {curve}; exponent {exponent:.2f} (gate {most:g})")
        if exponent > most:
            self.failures.append(f"{title}: exponent {exponent:.2f}, the gate is {most:g}")


def burst(call: Callable[[], Any]) -> list[float]:
    """Times of a call, made again until it took 2 ms in all."""
    times: list[float] = []
    while not times or sum(times) < 2e-3:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def best_of(call: Callable[[], Any], rounds: int = 5) -> float:
    """The least time of a call, in seconds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


@contextmanager
def suite() -> Iterator[Suite]:
    """Command line, checks before and verdict after; for ``with suite() as run:``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="at least so many rounds")
    parser.add_argument("--only", default="", help="only tables whose title has this text")
    parser.add_argument("--full", action="store_true", help="also sizes that take long")
    options = parser.parse_args()
    if _native.build_profile != "release":
        sys.exit("the native module is a debug build, its times mean nothing")
    run = Suite(rounds=options.rounds, only=options.only, full=options.full)
    yield run
    if not run.n_gates:
        sys.exit("no gate was looked at")
    for text in run.failures:
        print("MISSED", text)
    print(f"\n{run.n_gates - len(run.failures)} of {run.n_gates} gates held")
    if run.failures:
        sys.exit(1)
