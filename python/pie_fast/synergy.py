"""Pair synergy on a pool: exactly, and by gradient differences.

    synergy({f, g}) = I({f, g}) - I(f) - I(g)        per prompt, signed, then averaged

with `I` as in DESIGN.md section 2. Exactly it takes a run for every pair. By gradient differences
(METHODS.md 3.2) it takes one forward and backward for every feature j: the effect of each i is
measured where j is moved and where it is not,

    noising:    effect_i(all without j) - effect_i(all)
    denoising:  effect_i(only j)        - effect_i(none)

which is first order in i and exact in j; the two orders of a pair are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pie_fast.attribution import Patcher, gate_effects, pool_effects, sets_per_pass
from pie_fast.behaviors import Prompt
from pie_fast.errors import PieFastError
from pie_fast.model import MeanOf, Pool, Replacer, Setup, Switches

ESTIMATORS = ("exact", "gradient-difference")

#: rows between two reports of progress, and between two saves
BLOCK_ROWS = 16

#: called with the number of rows done and the number of rows there are
Progress = Callable[[int, int], None]


def model_calls(estimator: str, pool_size: int) -> tuple[int, int]:
    """Forward and backward passes over all prompts that a whole matrix takes."""
    if estimator == "exact":
        # Each row runs its own feature again, for its pairs to begin with.
        return 1 + 2 * pool_size + pool_size * (pool_size - 1) // 2, 0
    return 1 + pool_size, 1 + pool_size


def symmetric(rows: NDArray[np.float64], estimator: str) -> NDArray[np.float64]:
    """All M rows that an estimator measured as the symmetric matrix: `[M, M]`."""
    both = rows + rows.T
    return both if estimator == "exact" else both / 2


class SynergyEstimator:
    """Mean signed synergy, row by row; what rows share is computed once.

    Args:
        model: The replacement model.
        prompts: Over which synergy is averaged.
        pool: The candidates, M of them.
        metric: See `pie_fast.metrics`.
        switches: Baseline and the rest.
        estimator: `exact` or `gradient-difference`.
        direction: `noising` or `denoising`.
        batch_size: Prompts a batch.
        mean_of: Prompts that `baseline="mean"` averages over, or their means; `prompts` when None.

    Raises:
        PieFastError: Unknown estimator or direction.
    """

    def __init__(
        self,
        model: Replacer,
        prompts: Sequence[Prompt],
        pool: Pool,
        metric: str,
        switches: Switches,
        *,
        estimator: str = "gradient-difference",
        direction: str = "noising",
        batch_size: int = 32,
        mean_of: MeanOf | None = None,
    ) -> None:
        if estimator not in ESTIMATORS:
            raise PieFastError(
                f"estimator is {estimator!r}, must be one of {', '.join(ESTIMATORS)}"
            )
        self.exact, self.pool = estimator == "exact", pool
        self._patcher = Patcher(
            model,
            prompts,
            pool,
            metric,
            switches,
            direction=direction,
            batch_size=batch_size,
            mean_of=mean_of,
        )
        self._estimator = estimator
        self._alone: NDArray[np.float64] | None = None
        self._still: dict[int, NDArray[np.float64]] | None = None

    def prepare(self) -> None:
        """Run what rows share, once; `rows` does it where nobody did before."""
        if self.exact and self._alone is None:
            self._alone = self._patcher.values([(), *((i,) for i in range(len(self.pool)))])
        if not self.exact and self._still is None:
            self._still = {
                first: self._effects_at(setup, [()]) for first, setup in self._patcher.setups
            }

    def rows(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """Synergy of each pool position in `rows` with every pool feature: `[len(rows), M]`.

        Exact rows hold the pairs with larger positions only, gradient-difference rows are
        one-sided: `symmetric` makes the matrix of all of them. The diagonal is 0.
        """
        self.prepare()
        return self._exact(rows) if self.exact else self._differences(rows)

    def symmetric(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """All M rows as the symmetric matrix: `[M, M]`."""
        return symmetric(rows, self._estimator)

    def matrix(self, progress: Progress | None = None) -> NDArray[np.float64]:
        """Every row, symmetric: `[M, M]`."""
        size = len(self.pool)
        out = np.zeros((size, size))
        for first in range(0, size, BLOCK_ROWS):
            block = range(first, min(first + BLOCK_ROWS, size))
            out[block.start : block.stop] = self.rows(block)
            if progress is not None:
                progress(block.stop, size)
        return self.symmetric(out)

    def _exact(self, rows: Sequence[int]) -> NDArray[np.float64]:
        assert self._alone is not None, "prepared"
        size = len(self.pool)
        none, alone = self._alone[0], self._alone[1:]
        out = np.zeros((len(rows), size))
        for place, i in enumerate(rows):
            # Row by row: the pairs of i share its run up to the layer of the other one.
            both = self._patcher.values([(i,), *((i, j) for j in range(i + 1, size))])[1:]
            out[place, i + 1 :] = (both - alone[i] - alone[i + 1 :] + none).mean(1)
        return -out if self._patcher.noising else out

    def _differences(self, rows: Sequence[int]) -> NDArray[np.float64]:
        assert self._still is not None, "prepared"
        total = np.zeros((len(rows), len(self.pool)))
        for first, setup in self._patcher.setups:
            per_pass = sets_per_pass(setup, backward=True)
            for at in range(0, len(rows), per_pass):
                moved = [(row,) for row in rows[at : at + per_pass]]
                total[at : at + len(moved)] += self._effects_at(setup, moved) - self._still[first]
        out = total / self._patcher.n_prompts
        out[np.arange(len(rows)), list(rows)] = 0.0
        return out

    def _effects_at(self, setup: Setup, moved: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Effects with each set of features moved, summed over prompts: `[len(moved), M]`."""
        patcher = self._patcher
        found = gate_effects(
            patcher.model,
            setup,
            patcher.metric,
            pool=self.pool,
            gates=patcher.gates(moved),
            rest=patcher.rest,
        )
        summed: NDArray[np.float64] = (
            pool_effects(found, setup, self.pool).cpu().double().sum(1).numpy()
        )
        return summed
