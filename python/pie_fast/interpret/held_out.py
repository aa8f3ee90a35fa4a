"""Contexts that had no say in a label: it is judged on them."""

from __future__ import annotations

import numpy as np

from pie_fast.interpret.circuit import shown_contexts
from pie_fast.interpret.contexts import spread
from pie_fast.interpret.passes.collected import Collected
from pie_fast.interpret.rules.parts import REPORTING, parts_of_prompts
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import TopContext


def held_out_contexts(
    collected: Collected,
    k: int,
    vocabulary: Vocabulary,
    *,
    by_rules: bool,
    n_shown: int,
    n: int,
) -> list[TopContext]:
    """Contexts of feature number `k` that whoever labelled it did not see.

    Rules were mined and chosen on two parts of the sampled sequences, so for them it is the third
    one; anybody else was shown `n_shown` contexts of each kind.

    Args:
        collected: What the pass over the corpus kept.
        k: The feature.
        vocabulary: Texts of tokens.
        by_rules: Rules wrote the label.
        n_shown: Contexts of each kind that anybody else was shown.
        n: At most so many of each kind, from the strongest to the weakest.
    """
    n_all = collected.corpus.n_prompts
    if by_rules:
        sampled = collected.sampled(k)
        allowed = sampled.sequences[parts_of_prompts(sampled.activity) == REPORTING]
    else:
        seen = [one.sequence for one in collected.contexts(k, n_shown)]
        allowed = np.setdiff1d(np.arange(n_all), seen)
    unseen = set(allowed.tolist())
    kinds: dict[str, list[TopContext]] = {}
    told = shown_contexts(collected, k, n_all, vocabulary)
    for one, context in zip(collected.contexts(k, n_all), told, strict=True):
        if one.sequence in unseen:
            kinds.setdefault(one.kind, []).append(context)
    return [some[i] for some in kinds.values() for i in spread(len(some), n)]
