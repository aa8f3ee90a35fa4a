"""Interpret the features of a circuit: contexts, tokens, and a rule with its measured quality.

Only the features handed in are ever looked at: one pass over the dump picks out their entries, one
gather per layer reads their write vectors. The cost grows with the budget, not the dictionary.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.errors import PieFastError
from pie_fast.interpret.contexts import Activity, Context, Corpus, PromptLike
from pie_fast.interpret.explained import explain, interpretation_of, token_lists
from pie_fast.interpret.rules import Rule, mine_rule
from pie_fast.interpret.rules.facts import Facts
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Interpretation, TopContext
from pie_fast.types import FeatureId

__all__ = ["Activity", "Corpus", "Facts", "Rule", "Vocabulary", "interpret_features", "mine_rule"]


class EntriesLike(Protocol):
    """Entries of a few features: four arrays of equal length, in any order."""

    @property
    def prompt(self) -> ArrayLike:
        """``[n]`` index of the prompt."""

    @property
    def position(self) -> ArrayLike:
        """``[n]`` position in the prompt."""

    @property
    def feature(self) -> ArrayLike:
        """``[n]`` global id of the feature."""

    @property
    def activation(self) -> ArrayLike:
        """``[n]`` activation."""


def interpret_features(
    model: Any,
    dump_or_entries: Any,
    feature_ids: Sequence[int] | NDArray[np.integer[Any]],
    prompts: Sequence[PromptLike],
    fap_scores: Sequence[float] | NDArray[np.floating[Any]],
    *,
    n_contexts: int = 5,
    n_tokens: int = 5,
) -> list[Interpretation]:
    """Say of each feature where it fires and what it writes.

    Args:
        model: A replacement model; its ``clt`` and ``host`` are used.
        dump_or_entries: A feature dump (its ``entries_of`` is called once), or such entries.
        feature_ids: ``[k]`` global ids.
        prompts: The prompts of the dump, in its order; their roles serve the rules.
        fap_scores: ``[k]`` signed FAP scores of the same features.
        n_contexts: Top contexts kept of each feature.
        n_tokens: Promoted and suppressed tokens kept of each feature.

    Returns:
        ``k`` interpretations, in the order of `feature_ids`.

    Raises:
        PieFastError: Unequal lengths, counts below 0, or entries that do not fit the prompts.
        CheckpointError: A feature that the CLT does not have.
    """
    ids = [int(i) for i in feature_ids]
    if len(fap_scores) != len(ids):
        raise PieFastError(f"{len(fap_scores)} FAP scores for {len(ids)} features")
    for name, count in (("n_contexts", n_contexts), ("n_tokens", n_tokens)):
        if count < 0:
            raise PieFastError(f"{name} is {count}, must be at least 0")
    features = [FeatureId.from_global(i, model.clt.n_features) for i in ids]
    for feature in features:
        model.clt.check_feature(feature.layer, feature.index)
    if not ids:
        return []
    corpus, vocabulary = Corpus.of(prompts), Vocabulary(model.host.tokenizer)
    activities = _activities(dump_or_entries, ids, corpus)
    tokens = token_lists(model, ids, n_tokens, vocabulary)
    facts = Facts.of(corpus, vocabulary)
    result = []
    for feature, i, score, lists in zip(features, ids, fap_scores, tokens, strict=True):
        explained = explain(facts, activities[i], lists, vocabulary)
        contexts = tuple(_shown(c, corpus, vocabulary) for c in activities[i].top(n_contexts))
        found = interpretation_of(feature, float(score), explained, lists)
        result.append(replace(found, contexts=contexts))
    return result


def _activities(source: Any, ids: list[int], corpus: Corpus) -> dict[int, Activity]:
    """The activity of each feature, from one pass over the dump."""
    wanted = np.unique(np.asarray(ids, dtype=np.int64))
    if hasattr(source, "entries_of"):
        _check_prompts(source, corpus)
        source = source.entries_of(wanted)
    entries: EntriesLike = source
    feature = np.asarray(entries.feature, dtype=np.int64)
    kept = np.flatnonzero(np.isin(feature, wanted))  # entries handed in may be of every feature
    order = kept[np.argsort(feature[kept], kind="stable")]
    begin, end = (np.searchsorted(feature[order], wanted, side=s) for s in ("left", "right"))
    columns = [np.asarray(c) for c in (entries.prompt, entries.position, entries.activation)]
    result = {}
    for n, i in enumerate(wanted.tolist()):
        mine = order[begin[n] : end[n]]
        result[i] = Activity.of(corpus, *(column[mine] for column in columns))
    return result


def _check_prompts(dump: Any, corpus: Corpus) -> None:
    """Refuse prompts that are not the dump's: every label would be wrong and look right."""
    table = getattr(dump, "prompts", None)
    if table is None:
        return
    same = np.array_equal(table.prompt_ptr, corpus.ptr) and np.array_equal(
        table.tokens, corpus.tokens
    )
    if not same:
        raise PieFastError(
            f"the {corpus.n_prompts} prompts are not those of the dump, which has "
            f"{len(table.prompt_ptr) - 1}; hand in the split it was captured from"
        )


def _shown(context: Context, corpus: Corpus, vocabulary: Vocabulary) -> TopContext:
    tokens = tuple(vocabulary.text(t) for t in corpus.tokens_of(context.prompt).tolist())
    return TopContext(tokens, context.peak, context.activation)
