"""Selectors that grow a circuit and look again at every step."""

from __future__ import annotations

from pie_fast.conditional import grow
from pie_fast.cost import Cost
from pie_fast.ground import Ground
from pie_fast.methods.selector import Order


def conditional_gradient(
    ground: Ground,
    k: int,
    *,
    batch: int = 5,
    share: float = 0.0,
    pairs: int = 0,
    anchor: float = 0.0,
) -> Order:
    """The best few by their marginal gradient at the circuit so far, a pass each."""
    return _grown(ground, k, batch=batch, share=share, pairs=pairs, anchor=anchor)


def with_shortlist(ground: Ground, k: int, *, batch: int = 1, shortlist: int = 4) -> Order:
    """The best by gradient are tried exactly before one enters."""
    return _grown(ground, k, batch=batch, shortlist=shortlist)


def shortlist_cost(ground: Ground, k: int, *, batch: int, shortlist: int) -> Cost:
    """A pass a step, and the runs of what is tried and of the circuit beside it."""
    # The growth refuses a batch below 1; here it must only not loop.
    batch = max(batch, 1)
    sizes = [min(batch, k - done) for done in range(0, k, batch)]
    tried = sum(max(size, shortlist) + 1 for size in sizes)
    return Cost(len(sizes) + tried, len(sizes)).times(len(ground.prompts))


def _grown(ground: Ground, k: int, **options: float) -> Order:
    found = grow(ground, k, **options)  # type: ignore[arg-type]
    return ground.positions(found.ids), found.scores
