"""Prompts as one right-padded batch.

With causal attention no token sees what stands to its right, so padding on the right changes
nothing and needs no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_fast.behaviors import Prompt


@dataclass(frozen=True)
class Batch:
    """Prompts of a behaviour on a device.

    Attributes:
        tokens: `[batch, n_pos]` int64, padded on the right with 0.
        lengths: `[batch]` int64.
        answer_position: `[batch]` int64, whose logits are read.
        answer: `[batch]` int64.
        foil: `[batch]` int64, -1 where a prompt has none.
        counterfactual: `[batch, n_pos]` int64, or None.
        first: Number of the first prompt among those that the batch was cut from.
    """

    tokens: Tensor
    lengths: Tensor
    answer_position: Tensor
    answer: Tensor
    foil: Tensor
    counterfactual: Tensor | None
    first: int = 0

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def real(self) -> Tensor:
        """`[batch, n_pos]` bool: not padding."""
        at = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return at < self.lengths[:, None]


def make_batch(prompts: Sequence[Prompt], device: torch.device, first: int = 0) -> Batch:
    """Pad `prompts` to the longest of them; `first` is the number of the first one."""
    width = max(len(p.tokens) for p in prompts)
    twins = [p.counterfactual for p in prompts]

    def padded(rows: Sequence[Sequence[int]]) -> Tensor:
        filled = [[*row, *[0] * (width - len(row))] for row in rows]
        return torch.tensor(filled, dtype=torch.int64, device=device)

    def column(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    whole = [twin for twin in twins if twin is not None]
    return Batch(
        tokens=padded([p.tokens for p in prompts]),
        lengths=column([len(p.tokens) for p in prompts]),
        answer_position=column([p.answer_position for p in prompts]),
        answer=column([p.answer for p in prompts]),
        foil=column([-1 if p.foil is None else p.foil for p in prompts]),
        counterfactual=padded(whole) if len(whole) == len(prompts) else None,
        first=first,
    )


def batches(
    prompts: Sequence[Prompt], size: int, device: torch.device, start: int = 0
) -> Iterator[tuple[int, Batch]]:
    """`(first prompt, batch)` in order; a resumed run cuts where a fresh one would."""
    for first in range(start, len(prompts), size):
        yield first, make_batch(prompts[first : first + size], device, first)
