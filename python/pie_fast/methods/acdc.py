"""ACDC on features: what can go without the circuit noticing goes, the least important first.

    circuit = pool
    for i in pool, by ascending |score|:
        drop i from the circuit where KL(without i) - KL(with i) < tau

(Conmy et al. 2023; METHODS.md 2.3). tau is bisected until K features are left. The literal sweep
takes a run for each feature and tau. Here

* sets that were measured are remembered: sweeps of two taus share all they decide alike, from the
  start to the first difference;
* runs are batched by speculation: as long as features go, the next few sets are those without the
  first, the first two, the first three...; as long as they stay, those without each one of them.
  Up to the first feature that does otherwise these are the sets of the literal sweep. A block
  doubles after each that went through and starts anew at 1, so that less than twice the runs of
  the literal sweep are made.

All runs are counted, those that were made in vain too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.cost import Cost
from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods.selector import Order
from pie_fast.methods.single import as_score

Mask = NDArray[np.bool_]


def acdc(
    ground: Ground,
    k: int,
    *,
    pool: int = 300,
    sweeps: int = 16,
    block: int = 8,
    rank_by: str = "mean_abs",
) -> Order:
    """What is left of the best by FAP; the order is that of the rise in KL that kept each.

    Where no tau leaves exactly K, the sweep that leaves the fewest above K, or else the most, is
    cut or filled up by that rise.

    Args:
        pool: The best so many by FAP are swept, at least 2 K; the others are at their baseline.
        sweeps: At most so many values of tau are tried.
        block: At most so many runs are speculated at a time.
        rank_by: How effects on prompts become FAP scores.

    Raises:
        PieFastError: `pool`, `sweeps` or `block` is below 1.
    """
    for name, value in (("pool", pool), ("sweeps", sweeps), ("block", block)):
        if value < 1:
            raise PieFastError(f"{name} is {value}, must be at least 1")
    score = as_score(ground, ground.effects(), rank_by)
    best = np.argsort(-np.abs(score), kind="stable")[: _pool_size(ground, k, pool)]
    ascending = best[::-1]
    if k in (0, len(best)):
        return best, np.abs(score[best])
    swept = _bisect(Sweeper(ground, ascending, block), k, sweeps)
    # Kept before dropped, then by rise.
    order = np.lexsort((-swept.rises, ~swept.kept))
    return ascending[order], swept.rises[order]


def cost(ground: Ground, k: int, *, pool: int, sweeps: int, **_: Any) -> Cost:
    """The most that it can take."""
    runs = 2 + 2 * sweeps * _pool_size(ground, k, pool)
    return Cost(runs + 1, 1).times(len(ground.prompts))


@dataclass(frozen=True)
class Swept:
    """The outcome of one sweep.

    Attributes:
        kept: `[n]` bool, in the order of the sweep.
        rises: `[n]` float64, by how much the KL rose, or would have, without each.
    """

    kept: Mask
    rises: NDArray[np.float64]


class Sweeper:
    """Sweeps over the same features for several taus; what was measured is remembered.

    Args:
        ground: Prompts.
        features: Positions among the candidates, in the order of the sweep.
        block: At most so many runs are speculated at a time.
    """

    def __init__(self, ground: Ground, features: NDArray[np.int64], block: int) -> None:
        self.ground, self.features, self.block = ground, features, block
        self._known: dict[bytes, NDArray[np.float64]] = {}

    def sweep(self, tau: float) -> Swept:
        """One sweep."""
        n = len(self.features)
        inside, rises = np.ones(n, dtype=bool), np.zeros(n)
        now = self.divergences([inside])[0]
        at, size, dropping = 0, 1, True
        while at < n:
            ahead = range(at, min(at + size, n))
            sets = _without(inside, ahead, together=dropping)
            size = min(2 * size, self.block)
            for one, value in zip(sets, self.divergences(sets), strict=True):
                rises[at] = value - now
                drop = bool(rises[at] < tau)
                at += 1
                if drop:
                    inside, now = one, value
                if drop != dropping:  # the sets after it are not those of the literal sweep
                    dropping, size = drop, 1
                    break
        return Swept(inside, rises)

    def divergences(self, sets: Sequence[Mask]) -> NDArray[np.float64]:
        """KL(model || circuit) of each set, mean over prompts: `[len(sets)]`."""
        keys = [np.packbits(one).tobytes() for one in sets]
        new = {key: one for key, one in zip(keys, sets, strict=True) if key not in self._known}
        if new:
            gates = self.ground.gates(*(self.features[one] for one in new.values()))
            self._known.update(zip(new, -self.ground.values(gates, "kl"), strict=True))
        return self.ground.mean(np.stack([self._known[key] for key in keys]))


def _without(inside: Mask, ahead: range, *, together: bool) -> list[Mask]:
    """The set without each of `ahead`, or without each and all those before it."""
    sets, rest = [], inside
    for one in ahead:
        smaller = (rest if together else inside).copy()
        smaller[one] = False
        sets.append(smaller)
        rest = smaller
    return sets


def _bisect(sweeper: Sweeper, k: int, sweeps: int) -> Swept:
    """The sweep that leaves k, or else the nearest above k, or else the nearest below."""
    n = len(sweeper.features)
    everything, nothing = np.ones(n, dtype=bool), np.zeros(n, dtype=bool)
    whole, empty = sweeper.divergences([everything, nothing])
    tau = max(empty - whole, 1e-6) / n
    low, high = 0.0, inf
    best: Swept | None = None
    for done in range(sweeps):
        found = sweeper.sweep(tau)
        left = int(found.kept.sum())
        if best is None or _nearer(left, int(best.kept.sum()), k):
            best = found
        sweeper.ground.tell(done + 1, sweeps)
        if left == k:
            break
        low, high = (tau, high) if left > k else (low, tau)
        tau = 4 * tau if high == inf else sqrt(low * high) if low else tau / 4
    assert best is not None, "there is at least one sweep"
    return best


def _nearer(left: int, so_far: int, k: int) -> bool:
    """Whether a sweep that leaves so many is the better one."""
    if (left >= k) != (so_far >= k):
        return left >= k
    return abs(left - k) < abs(so_far - k)


def _pool_size(ground: Ground, k: int, pool: int) -> int:
    return min(max(pool, 2 * k), len(ground))
