"""How often a feature is selected again when the prompts are drawn anew.

A selection stands on a sample of prompts. Each bootstrap resample draws as many prompts with
replacement and selects on them; the share of resamples that keep a feature says whether it stands
for the behaviour (near 1) or for these prompts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.dump import FeatureDump
from pie_fast.errors import PieFastError
from pie_fast.select import greedy_select_many, top_k

#: how often each prompt was drawn, `[n_prompts]` float64 -> the ids selected
Select = Callable[[NDArray[np.float64]], ArrayLike]

#: called with the number of resamples done and the number there are
Progress = Callable[[int, int], None]


def draw_prompts(n_prompts: int, n_resamples: int, seed: int = 0) -> NDArray[np.float64]:
    """How often each prompt is drawn in each resample: `[n_resamples, n_prompts]`.

    Raises:
        PieFastError: No resamples, or no prompts.
    """
    for name, value in (("n_resamples", n_resamples), ("n_prompts", n_prompts)):
        if value < 1:
            raise PieFastError(f"{name} is {value}, must be at least 1")
    share = np.full(n_prompts, 1 / n_prompts)
    drawn = np.random.default_rng(seed).multinomial(n_prompts, share, n_resamples)
    return drawn.astype(np.float64)


def selection_frequency(
    select: Select,
    ids: ArrayLike,
    n_prompts: int,
    *,
    n_resamples: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """The share of resamples in which `select` keeps each of `ids`: `[len(ids)]` float64.

    Args:
        select: From how often each prompt counts to the ids it selects.
        ids: The features asked about.
        n_prompts: That selection looks at.
        n_resamples: Selections that are made.
        seed: Of the resamples.
        progress: Called after each selection.
    """
    found = np.zeros(len(np.asarray(ids)))
    drawn = draw_prompts(n_prompts, n_resamples, seed)
    for done, weights in enumerate(drawn, start=1):
        found += np.isin(ids, np.asarray(select(weights)))
        if progress is not None:
            progress(done, n_resamples)
    return found / n_resamples


class ResampledScores:
    """FAP scores of a dump's features on reweighted prompts, from one pass over the dump.

    Args:
        dump: With attributions.
        rank_by: `signed`, `abs` or `mean_abs`.

    Attributes:
        ids: `[n]` int64, the active features, ascending.
    """

    def __init__(self, dump: FeatureDump, rank_by: str) -> None:
        entries = dump.entries(0, dump.n_prompts)
        if entries.attribution is None:
            raise PieFastError(f"{dump.path} holds no attributions, so its scores are unknown")
        prompt = np.repeat(np.arange(dump.n_prompts), np.diff(entries.prompt_ptr))
        # One value per prompt and feature: the sum over positions, as scores are defined. A dump's
        # entries are in this order already, which its reader checks.
        key = prompt * np.int64(2**32) + entries.feature.astype(np.int64)
        begins = np.diff(key, prepend=-1) != 0
        effects = np.bincount(np.cumsum(begins) - 1, entries.attribution, begins.sum())
        self._prompt = prompt[begins]
        self.ids, self._column = np.unique(
            entries.feature[begins].astype(np.int64), return_inverse=True
        )
        self._effects = np.abs(effects) if rank_by == "mean_abs" else effects
        self._absolute = rank_by == "abs"

    def on(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of `ids` where prompt p counts `weights[p]` times: `[n]` float64."""
        weighted = self._effects * weights[self._prompt]
        total = np.bincount(self._column, weighted, len(self.ids))
        mean: NDArray[np.float64] = total / weights.sum()
        return np.abs(mean) if self._absolute else mean


def frequency_by_score(
    dump: FeatureDump, ids: ArrayLike, rank_by: str, *, n_resamples: int = 10, seed: int = 0
) -> NDArray[np.float64]:
    """`selection_frequency` of the best `len(ids)` by FAP score."""
    scores = ResampledScores(dump, rank_by)
    k = len(np.asarray(ids))
    return selection_frequency(
        lambda weights: scores.ids[top_k(scores.on(weights), k)],
        ids,
        dump.n_prompts,
        n_resamples=n_resamples,
        seed=seed,
    )


def frequency_by_synergy(
    dump: FeatureDump,
    ids: ArrayLike,
    pool: NDArray[np.int64],
    synergy: object,
    rank_by: str,
    *,
    bonus: str = "mean",
    n_resamples: int = 10,
    seed: int = 0,
) -> NDArray[np.float64]:
    """`selection_frequency` of greedy selection by score and synergy.

    Scores are those of the resampled prompts; pool and synergies are kept as they are, because
    measuring them anew is what costs, so the shares are an upper bound of the selector's own.
    """
    scores = ResampledScores(dump, rank_by)
    drawn = draw_prompts(dump.n_prompts, n_resamples, seed)
    place = np.searchsorted(scores.ids, pool)
    rows = np.stack([scores.on(weights)[place] for weights in drawn])
    wanted = np.asarray(ids)
    chosen = greedy_select_many(rows, synergy, len(wanted), bonus=bonus)  # type: ignore[arg-type]
    share: NDArray[np.float64] = np.mean([np.isin(wanted, pool[row]) for row in chosen], axis=0)
    return share
