"""A circuit as replacement runs take it: a pool and gates; of features, or of nodes by slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pie_fast.behaviors import Prompt
from pie_fast.model import Pool, Replacer, Setup
from pie_fast.slots import Slots


def gated_pool(model: Replacer, ids: ArrayLike, slots: Slots | None = None) -> tuple[Pool, Tensor]:
    """The features of a circuit, and its gates: 1 for what it keeps.

    Args:
        model: The replacement model.
        ids: Global ids of features in any order; of nodes where there are slots.
        slots: Of the nodes.

    Returns:
        A pool and gates `[1, len(pool)]`, or `[1, n_slots, len(pool)]` of nodes.

    Raises:
        PieFastError: A feature is not in the CLT, or twice where there are no slots.
    """
    kept = np.asarray(ids, dtype=np.int64)
    if slots is None:
        pool = model.make_pool(kept.tolist())
        return pool, torch.ones(1, len(pool), device=model.device)
    features, at = np.divmod(kept, len(slots))
    pool = model.make_pool(np.unique(features).tolist())
    gates = torch.zeros(1, len(slots), len(pool), device=model.device)
    gates[0, torch.from_numpy(at), torch.from_numpy(np.searchsorted(pool.global_ids, features))] = 1
    return pool, gates


def with_slots(
    setups: Iterable[tuple[int, Setup]], prompts: Sequence[Prompt], slots: Slots | None
) -> list[tuple[int, Setup]]:
    """Prepared batches of `prompts` that know the slots of their positions, where there are any."""
    if slots is None:
        return list(setups)
    found = []
    for first, setup in setups:
        some = prompts[first : first + len(setup.batch)]
        numbers = torch.from_numpy(slots.numbers(some, setup.batch.tokens.shape[1]))
        found.append((first, replace(setup, slots=numbers.to(setup.batch.tokens.device))))
    return found
