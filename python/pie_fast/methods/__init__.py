"""Selectors with the model at hand, behind one interface, each with its cost counted.

`select_on(ground, "conditional-gradient", 50)`; `SELECTORS` lists them.
"""

from __future__ import annotations

from typing import Any

from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods import acdc, exact, fisher, grown, integrated, masks, pairwise, single
from pie_fast.methods.selector import Selector
from pie_fast.selectors import Ranked

__all__ = ["SELECTORS", "Ground", "Selector", "select_on", "selector_named"]

SELECTORS = {
    selector.name: selector
    for selector in (
        Selector("random", "active features in random order", single.at_random),
        Selector("magnitude", "largest mean activation", single.magnitude),
        Selector("fap", "largest first-order effect at the model itself", single.fap),
        Selector("fap-ig", "effects integrated from nothing to everything", integrated.fap_ig),
        Selector("relp", "fap by the RelP rule of the gradient", single.relp),
        Selector("gim", "fap by the GIM rule of the gradient", single.gim),
        Selector("exact", "largest effect by ablation", exact.exact, cost=exact.cost),
        Selector(
            "acdc",
            "what a sweep of removals leaves, its threshold bisected",
            acdc.acdc,
            nested=False,
            redundancy_aware=True,
            features_only=True,
            cost=acdc.cost,
        ),
        Selector(
            "fap-synergy",
            "score plus synergy with what is selected",
            pairwise.fap_synergy,
            features_only=True,
            cost=pairwise.cost,
        ),
        Selector(
            "conditional-gradient",
            "largest gradient at the circuit so far, a few a pass",
            grown.conditional_gradient,
        ),
        Selector(
            "conditional-shortlist",
            "the same, the best few tried exactly",
            grown.with_shortlist,
            redundancy_aware=True,
            cost=grown.shortlist_cost,
        ),
        Selector(
            "fisher-gram",
            "backward elimination by the Fisher matrix of the gates",
            fisher.fisher_gram,
            features_only=True,
        ),
        Selector(
            "linkl",
            "backward elimination by the KL of logits that are linear in the gates",
            fisher.linkl,
            features_only=True,
        ),
        Selector(
            "masks",
            "gates of all candidates learnt by gradient descent",
            masks.masks,
            nested=False,
            redundancy_aware=True,
            features_only=True,
        ),
    )
}


def selector_named(name: str) -> Selector:
    """The selector of that name.

    Raises:
        PieFastError: With the names that there are.
    """
    if name not in SELECTORS:
        raise PieFastError(f"selector {name!r} is not one of {', '.join(SELECTORS)}")
    return SELECTORS[name]


def select_on(ground: Ground, name: str, k: int, **options: Any) -> Ranked:
    """Select k features by the selector of that name, see `Selector.select`."""
    return selector_named(name).select(ground, k, **options)
