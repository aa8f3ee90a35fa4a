"""Many gate settings of one batch, exactly; what they share with the first is run once.

A row of gates that differs from the first row only from layer l on does up to there what the first
row's run does, so it begins at block l with that run's residual stream and writes. Rows are sorted
by that layer and cut into passes, and a pass begins where its lowest row does: never more passes
than without, and shorter ones.

Features whose gate says in every row of a pass what the rest does anyway are left out of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.model.pool import Pool
from pie_fast.model.replacement import Replacer
from pie_fast.model.state import Run, Setup


def sweep(
    model: Replacer, setup: Setup, pool: Pool, gates: Tensor, *, rest: str, at_once: int
) -> Iterator[tuple[list[int], Run]]:
    """Every row of gates.

    Args:
        model: The replacement model.
        setup: A prepared batch.
        pool: The gated features.
        gates: `[n_sets, len(pool)]`, or by slot as in `Replacer.run`.
        rest: `free` or `baseline`.
        at_once: Rows a pass.

    Yields:
        Numbers of rows with their run; every row once.
    """
    starts = first_differing(pool, gates)
    order = np.argsort(starts, kind="stable")
    differing = order[starts[order] < len(pool.by_layer)]
    passes = [differing[at : at + at_once] for at in range(0, len(differing), at_once)]
    begins = [int(starts[rows[0]]) for rows in passes]
    keep = {layer for layer in begins if layer > 0}
    same = order[len(differing) :].tolist()
    base = model.run(setup, *_in_play(model, pool, gates[:1], rest), rest=rest, keep=keep)
    for row in same:
        yield [row], base
    for rows, begin in zip(passes, begins, strict=True):
        some = _in_play(model, pool, gates[torch.from_numpy(rows).to(gates.device)], rest)
        prefix = base.prefixes.get(begin)
        yield rows.tolist(), model.run(setup, *some, rest=rest, prefix=prefix)


def first_differing(pool: Pool, gates: Tensor) -> NDArray[np.int64]:
    """The layer of the first gate in which each row is not as row 0: `[n_sets]`.

    The number of layers where there is none.
    """
    unlike = gates != gates[:1]
    differs = (unlike.any(1) if unlike.dim() == 3 else unlike).cpu().numpy()
    layer = np.searchsorted([slot.stop for slot in pool.slots], np.arange(len(pool)), side="right")
    where = np.where(differs, layer[None], len(pool.slots))
    starts: NDArray[np.int64] = where.min(1, initial=len(pool.slots))
    return starts


def _in_play(model: Replacer, pool: Pool, gates: Tensor, rest: str) -> tuple[Pool, Tensor]:
    """The features that some row treats otherwise than the rest, and their gates."""
    used = (gates != float(rest == "free")).flatten(0, -2).any(0)
    return model.make_pool(pool.global_ids[used.cpu().numpy()]), gates[..., used]
