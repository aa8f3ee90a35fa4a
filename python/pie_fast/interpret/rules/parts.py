"""Three parts of the prompts: rules are mined on one, chosen with another, reported on the third.

What is reported has chosen nothing. Half of the prompts are for mining, a quarter for choosing, a
quarter for reporting; so are the prompts that the feature fires in, and the silent ones. Who
belongs where is drawn by a fixed hash of the prompt's index: generated behaviours alternate
templates by parity, which parts by parity would keep apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pie_fast.interpret.contexts import Activity, Bools, Ints

MINING, CHOOSING, REPORTING = 0, 1, 2

#: parts of every four prompts in hashed order; the first two are of different parts, and three
#: prompts are enough for one in each
_TURNS = np.array([MINING, REPORTING, CHOOSING, MINING])


def parts_of_prompts(activity: Activity) -> NDArray[np.int64]:
    """The part of each prompt: ``[n_prompts]`` int64, 0 mining, 1 choosing, 2 reporting."""
    corpus = activity.corpus
    active = np.zeros(corpus.n_prompts, dtype=bool)
    active[corpus.prompt[activity.at]] = True
    mixed = hash_of(np.arange(corpus.n_prompts))
    parts = np.empty(corpus.n_prompts, dtype=np.int64)
    for group in (np.flatnonzero(active), np.flatnonzero(~active)):
        order = group[np.argsort(mixed[group], kind="stable")]
        parts[order] = _TURNS[np.arange(len(order)) % len(_TURNS)]
    return parts


def positions_in(activity: Activity, part: int) -> Bools:
    """``[n_tokens]`` bool: the counted positions of one part."""
    corpus = activity.corpus
    here: Bools = (parts_of_prompts(activity) == part)[corpus.prompt]
    return corpus.counted_mask & here


def hash_of(index: Ints) -> Ints:
    """The splitmix64 finaliser: indices in an order that has nothing to do with the prompts."""
    x = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    mixed = x ^ (x >> np.uint64(31))
    # uint64 keys sort as they are; a signed view is only another fixed order
    return mixed.view(np.int64)
