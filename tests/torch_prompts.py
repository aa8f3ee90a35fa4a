"""Prompts for the tiny model."""

from __future__ import annotations

import numpy as np

import tiny
from pie_fast.behaviors import Prompt


def random_prompts(n: int, seed: int = 3) -> list[Prompt]:
    """Random tokens of random length after a BOS, each with a counterfactual of equal length."""
    rng = np.random.default_rng(seed)

    def tokens(size: int) -> tuple[int, ...]:
        return (0, *rng.integers(1, tiny.VOCAB, size - 1).tolist())

    sizes = rng.integers(4, 14, n).tolist()
    return [Prompt(tokens(s), answer=3, foil=5, counterfactual=tokens(s)) for s in sizes]
