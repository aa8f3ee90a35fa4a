"""What a feature does to the output: tokens that its writes raise and lower directly.

The writes of feature f, summed over every layer it writes to, through the unembedding:

    e_f = (sum over l' of d_{f->l'}) @ W_U         W_U with the final norm's gain folded in

Per unit of activation, before the final norm divides by its scale, and along the direct path only:
what later layers make of the writes is left out. A LayerNorm takes the mean of what it reads away,
so the mean of each write goes first; a shift of all logits changes no probability, so the mean over
the vocabulary goes as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pie_fast.clt import Clt

#: logits held at once; a bound on memory for large vocabularies and budgets
_BLOCK = 1 << 25


@dataclass(frozen=True)
class TokenScores:
    """The tokens that one feature raises and lowers most.

    Attributes:
        promoted: ``(token id, effect)``, effects above 0, strongest first.
        suppressed: ``(token id, effect)``, effects below 0, strongest first.
    """

    promoted: tuple[tuple[int, float], ...]
    suppressed: tuple[tuple[int, float], ...]


def total_writes(clt: Clt, feature_ids: Sequence[int]) -> Tensor:
    """Write vectors summed over target layers: ``[n, d_model]`` float32.

    One gather for each layer that has features among them.

    Args:
        clt: The transcoder.
        feature_ids: Global ids, in any order.
    """
    device = clt.b_dec.device
    layers, indices = np.divmod(np.asarray(feature_ids, dtype=np.int64), clt.n_features)
    total = torch.zeros(len(layers), clt.d_model, device=device)
    for layer in np.unique(layers).tolist():
        slots = np.flatnonzero(layers == layer)
        mine, back = np.unique(indices[slots], return_inverse=True)
        rows = clt.rows(layer, torch.from_numpy(mine).to(device)).float().sum(1)
        total[torch.from_numpy(slots)] = rows[torch.from_numpy(back)]
    return total


def token_scores(
    clt: Clt,
    unembedding: Tensor,
    feature_ids: Sequence[int],
    n_tokens: int,
    *,
    centre_writes: bool,
) -> list[TokenScores]:
    """The most promoted and suppressed tokens of each feature.

    Args:
        clt: The transcoder.
        unembedding: ``[d_model, vocab]``, the final norm's gain folded in.
        feature_ids: Global ids, in any order.
        n_tokens: How many tokens of each kind; ties go to the smaller token id.
        centre_writes: Whether the final norm removes the mean of what it reads (LayerNorm).

    Returns:
        One for each feature, in the order given.
    """
    writes = total_writes(clt, feature_ids)
    if centre_writes:
        writes = writes - writes.mean(1, keepdim=True)
    # the mean over the vocabulary is linear: taken off the matrix it is off every product
    head = unembedding.float() - unembedding.float().mean(1, keepdim=True)
    result = []
    writes, step = writes.to(head.device), max(_BLOCK // head.shape[1], 1)
    for begin in range(0, len(writes), step):
        for row in (writes[begin : begin + step] @ head).cpu().numpy():
            result.append(TokenScores(_strongest(row, n_tokens, 1), _strongest(row, n_tokens, -1)))
    return result


def _strongest(effect: NDArray[np.float32], n: int, sign: int) -> tuple[tuple[int, float], ...]:
    """At most ``n`` tokens whose effect has this sign, strongest first, ties by token id."""
    signed = sign * effect
    n = min(n, int((signed > 0).sum()))
    if n <= 0:
        return ()
    # everything that ties with the n-th is sorted too: a partial sort alone breaks ties anyhow
    bound = np.partition(signed, len(signed) - n)[len(signed) - n]
    reached = np.flatnonzero(signed >= bound)
    best = reached[np.argsort(-signed[reached], kind="stable")][:n]
    return tuple((int(i), float(effect[i])) for i in best)
