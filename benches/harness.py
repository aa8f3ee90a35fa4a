"""Compare ways to the same answer in one process, and fail when a promise is missed.

Candidates are interleaved: every round runs each of them for a moment (short ones several times, so
that each is met with warm caches), and a slow minute of the machine meets all. Answers are asserted
equal before a figure is printed. Only ratios (peer / ours) of the minima of one run are gated,
never times; a gate that is missed is measured once more.

What is printed is also kept as records; ``--json FILE`` writes them for ``table.py``.
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
from pathlib import Path
from typing import Any

from pie_fast import _native
from record import ABSENT, HELD, MISSED, TOLD, Record, duration, save, times

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
        floor: The target's gate, where ours is lower; ``note`` says why.
        missing: The library that is not installed; the peer is then named and not measured.
    """

    run: Callable[[], Any]
    gate: float | None = None
    goal: float | None = None
    note: str = ""
    same: bool = True
    rounds: int = 1_000_000
    floor: float | None = None
    missing: str = ""

    def state(self, ratio: float) -> str:
        if self.missing:
            return ABSENT
        if self.gate is None:
            return TOLD
        return HELD if ratio >= self.gate else MISSED


def absent(library: str, gate: float | None = None) -> Peer:
    """A peer that cannot be measured here: it stands in the table by its name."""
    note = f"{library} is not installed"
    return Peer(lambda: None, gate=gate, missing=library, note=note)


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
    records: list[Record] = field(default_factory=list)
    n_gates: int = 0

    def compare(
        self,
        title: str,
        ours: Callable[[], Any],
        peers: dict[str, Peer],
        *,
        equal: Callable[[Any, Any], bool],
        seconds: float = 1.0,
        target: str = "",
    ) -> None:
        """Measure, assert equal answers, print a table, check the gates.

        Args:
            title: What is computed, with its sizes.
            ours: The call that is promised to be fast.
            peers: What it is compared to.
            equal: Whether an answer of a peer is ours.
            seconds: Rounds go on for about so long, and for at least ``self.rounds``.
            target: Letter of the target it stands for.
        """
        if self.only not in title:
            return
        missing = {name: peer for name, peer in peers.items() if peer.missing}
        peers = {name: peer for name, peer in peers.items() if not peer.missing}
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
        for name, peer in missing.items():
            print(f"  {name:34}{peer.missing} is not installed", flush=True)
        self._keep(target, title, rows, missing)
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

    def _keep(self, target: str, title: str, rows: list[Row], missing: dict[str, Peer]) -> None:
        ours = rows[0].best
        for row in rows[1:]:
            self.records.append(
                self._record(target, title, duration(ours), row.name, row.best / ours, row.peer)
            )
        for name, peer in missing.items():
            self.records.append(self._record(target, title, duration(ours), name, 0.0, peer))

    def _record(
        self, target: str, title: str, ours: str, name: str, ratio: float, peer: Peer
    ) -> Record:
        return Record(
            target,
            title,
            ours,
            name,
            ratio="" if peer.missing else times(ratio),
            gate=times(peer.gate),
            floor=times(peer.floor),
            goal=times(peer.goal),
            state=peer.state(ratio),
            note=peer.note,
        )

    def figures(
        self, title: str, unit: str, ours: float, peers: dict[str, tuple[float, Peer]], target: str
    ) -> None:
        """Compare what is not a time (memory): a figure and a `Peer` for its gates by name."""
        if self.only not in title:
            return
        print(f"\n{title}: ours {ours:.3g} {unit}")
        for name, (figure, peer) in peers.items():
            ratio = figure / ours
            record = self._record(target, title, f"{ours:.3g} {unit}", name, ratio, peer)
            self.records.append(record)
            if peer.missing:
                print(f"  {name:34}{peer.missing} is not installed")
                continue
            print(f"  {name:34}{figure:10.4g} {unit}  {record.ratio:>9}  {record.gate:>7}")
            if peer.gate is not None:
                self.n_gates += 1
                if ratio < peer.gate:
                    self.failures.append(f"{title}: {ratio:.3g}x of {name}, gate {peer.gate:g}x")

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
        self,
        title: str,
        cost: Callable[[int], float],
        sizes: list[int],
        most: float | None,
        target: str = "",
    ) -> None:
        """Fail when time grows faster than ``size ** most`` between the first and last size.

        Without ``most`` the exponent is only told.
        """
        if self.only not in title:
            return
        self.n_gates += most is not None
        limit = math.inf if most is None else most
        for attempt in (1, 2):
            spent = [cost(size) for size in sizes]
            exponent = math.log(spent[-1] / spent[0]) / math.log(sizes[-1] / sizes[0])
            if exponent <= limit or attempt == 2:
                break
        curve = ", ".join(f"{n}: {t * 1e3:.3g} ms" for n, t in zip(sizes, spent, strict=True))
        gate = "" if most is None else f"<= {most:g}"
        print(f"\n{title}: {curve}; exponent {exponent:.2f} (gate {gate or 'none'})")
        state = TOLD if most is None else HELD if exponent <= limit else MISSED
        self.records.append(
            Record(
                target,
                title,
                duration(spent[-1]),
                "exponent",
                ratio=f"{exponent:.2f}",
                gate=gate,
                state=state,
                note=curve,
            )
        )
        if exponent > limit:
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
    parser.add_argument("--json", type=Path, help="write the records to this file")
    options = parser.parse_args()
    if _native.build_profile != "release":
        sys.exit("the native module is a debug build, its times mean nothing")
    run = Suite(rounds=options.rounds, only=options.only, full=options.full)
    yield run
    if options.json:
        save(run.records, options.json)
    if not run.records:
        sys.exit("nothing was measured")
    for text in run.failures:
        print("MISSED", text)
    print(f"\n{run.n_gates - len(run.failures)} of {run.n_gates} gates held")
    if run.failures:
        sys.exit(1)
