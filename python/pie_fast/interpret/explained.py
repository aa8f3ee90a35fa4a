"""One feature's rule with what it was mined on, and the tokens that it writes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.interpret.contexts import Activity
from pie_fast.interpret.passes.collected import Sampled
from pie_fast.interpret.rules import Rule, mine_rule
from pie_fast.interpret.rules.facts import Facts
from pie_fast.interpret.rules.sentence import label
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Interpretation, TokenEffect
from pie_fast.types import FeatureId


@dataclass(frozen=True)
class TokenLists:
    """The tokens that a feature's writes move.

    Attributes:
        promoted: Those raised, strongest first.
        suppressed: Those lowered, strongest first.
    """

    promoted: tuple[TokenEffect, ...]
    suppressed: tuple[TokenEffect, ...]


@dataclass(frozen=True, eq=False)
class Explained:
    """A feature in words.

    Attributes:
        facts: Of the contexts, the feature's own families among them.
        activity: Its activations there.
        rule: Where it fires; None where it fires too rarely to tell.
        label: The sentence.
        weights: ``[n_prompts]`` float64, how many prompts each of the contexts stands for.
        record: The rule in plain values.
    """

    facts: Facts
    activity: Activity
    rule: Rule | None
    label: str
    weights: NDArray[np.float64]
    record: dict[str, Any] | None


def explain(
    facts: Facts,
    activity: Activity,
    tokens: TokenLists,
    vocabulary: Vocabulary,
    weights: ArrayLike | None = None,
) -> Explained:
    """Mine a feature's rule and say it.

    Args:
        facts: Of the activity's corpus.
        activity: The feature's.
        tokens: What its writes move.
        vocabulary: Names tokens.
        weights: ``[n_prompts]`` floats, how many prompts each one stands for; 1 if not given.
    """
    own = facts.with_promoted([one.token_id for one in tokens.promoted])
    n = activity.corpus.n_prompts
    weight = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    rule = mine_rule(own, activity, weight)
    said = label(rule, activity, own, vocabulary, tokens.promoted, tokens.suppressed, weight)
    record = None if rule is None else rule.to_dict(vocabulary)
    return Explained(own, activity, rule, said, weight, record)


def explain_sampled(sampled: Sampled, tokens: TokenLists, vocabulary: Vocabulary) -> Explained:
    """The same on what a pass over a corpus drew of a feature's sequences."""
    facts = Facts.of(sampled.corpus, vocabulary)
    return explain(facts, sampled.activity, tokens, vocabulary, sampled.weights)


def interpretation_of(
    feature: FeatureId, fap_score: float, explained: Explained, tokens: TokenLists
) -> Interpretation:
    """What rule and tokens say of a feature."""
    rule, activity = explained.rule, explained.activity
    return Interpretation(
        feature=feature,
        fap_score=fap_score,
        label=explained.label,
        layer=feature.layer,
        positions=activity.positions,
        promoted=tokens.promoted,
        suppressed=tokens.suppressed,
        label_quality=None if rule is None else rule.held_out.above_chance,
        n_active_prompts=activity.n_active_prompts,
        rule=explained.record,
        density=activity.density,
    )


def token_lists(
    model: Any, feature_ids: Sequence[int], n_tokens: int, vocabulary: Vocabulary
) -> list[TokenLists]:
    """Promoted and suppressed tokens of each feature, at most `n_tokens` of each kind.

    Args:
        model: A replacement model; its ``clt`` and ``host`` are used.
        feature_ids: ``[k]`` global ids.
        n_tokens: How many of each kind.
        vocabulary: Names tokens.
    """
    from pie_fast.interpret.effects import token_scores  # torch starts here

    def named(pairs: tuple[tuple[int, float], ...]) -> tuple[TokenEffect, ...]:
        return tuple(TokenEffect(vocabulary.text(t), t, effect) for t, effect in pairs)

    host = model.host
    scores = token_scores(
        model.clt, host.unembedding(), feature_ids, n_tokens, centre_writes=host.centres
    )
    return [TokenLists(named(s.promoted), named(s.suppressed)) for s in scores]
