"""Interpret a circuit: one pass over a corpus serves all K features; the rest follows from it.

    contexts    where each fires, how strongly, and with which others         one forward pass
    tokens      what it raises and lowers                                     write vectors of the K
    edges       which feed which                                              one backward pass each
    rules       where it fires, in words; mined, chosen and reported on three parts of the contexts
    quality     FADE's measures of those rules, on positions                  steered runs of the K
    narrative   the circuit layer by layer

Nothing here is as wide as the dictionary: encoder and decoder rows are read of the K only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pie_fast.behaviors import Prompt
from pie_fast.checkpoints import Checkpoints
from pie_fast.errors import PieFastError
from pie_fast.interpret.contexts import Corpus
from pie_fast.interpret.edges import Edges, feature_edges
from pie_fast.interpret.explained import explain_sampled, interpretation_of, token_lists
from pie_fast.interpret.narrative import Narrative, narrate
from pie_fast.interpret.passes.collected import Collected
from pie_fast.interpret.passes.collecting import collect
from pie_fast.interpret.rule_tests import RuleTests
from pie_fast.interpret.summary import Summary, summary
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Interpretation, Link, Measure, TopContext
from pie_fast.model import Replacer
from pie_fast.progress import Reporter
from pie_fast.types import FeatureId

#: the arrays of `Edges`
_EDGES = ("effects", "mean_abs", "to_metric")


@dataclass(frozen=True)
class Choices:
    """How much is looked at.

    Attributes:
        n_contexts: Contexts of each kind that are kept of a feature.
        n_tokens: Promoted tokens of each, and suppressed ones.
        n_links: Features named as firing with it, feeding it, fed by it.
        n_bins: Bins of its histogram, at most.
        edge_prompts: Prompts that edges are averaged over, at most.
        n_concept: Positions that are made to meet its rule, for Clarity.
        steered_prompts: Prompts that are steered, for Faithfulness; 0 leaves it out.
        batch_size: Prompts a pass.
        seed: Of edits and draws.
    """

    n_contexts: int = 5
    n_tokens: int = 10
    n_links: int = 5
    n_bins: int = 24
    edge_prompts: int = 32
    n_concept: int = 60
    steered_prompts: int = 16
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 1 if name in ("n_bins", "edge_prompts", "batch_size") else 0
            if value < least:
                raise PieFastError(f"{name} is {value}, must be at least {least}")


@dataclass(frozen=True, eq=False)
class CircuitInterpretation:
    """What the K features do, each and together.

    Attributes:
        interpretations: In the order asked for.
        collected: What the pass over the corpus kept.
        edges: Which feed which.
        narrative: The circuit layer by layer.
        choices: How much was looked at.
    """

    interpretations: tuple[Interpretation, ...]
    collected: Collected
    edges: Edges
    narrative: Narrative
    choices: Choices

    def place_of(self, feature: Any) -> int:
        """Where a feature stands in `collected`."""
        return self.edges.features.index(feature)

    def labelled(self, interpretations: Sequence[Interpretation]) -> CircuitInterpretation:
        """The same with other words; the story is told anew from rules, and words without one."""
        return replace(
            self, interpretations=tuple(interpretations), narrative=narrate(interpretations)
        )

    @property
    def quality(self) -> dict[str, Summary]:
        """Every measure over the features, each mean with its coverage."""
        return summary([one.quality for one in self.interpretations])

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        corpus = self.collected.corpus
        return {
            "interpretations": [one.to_dict() for one in self.interpretations],
            "edges": {
                "features": [str(feature) for feature in self.edges.features],
                "effects": self.edges.effects.tolist(),
                "mean_abs": self.edges.mean_abs.tolist(),
                "to_metric": self.edges.to_metric.tolist(),
                "n_prompts": self.edges.n_prompts,
            },
            "narrative": self.narrative.to_dict(),
            "quality": {name: one.to_dict() for name, one in self.quality.items()},
            "corpus": {
                "n_sequences": corpus.n_prompts,
                "n_tokens": len(corpus.tokens),
                "n_counted": int(corpus.counted_mask.sum()),
                "sources": dict(Counter(corpus.sources or ())),
            },
        }


def interpret_circuit(
    model: Replacer,
    feature_ids: ArrayLike,
    fap_scores: ArrayLike,
    prompts: Sequence[Prompt],
    corpus: Corpus,
    *,
    fresh: Sequence[Prompt] = (),
    metric: str = "logit-diff",
    choices: Choices | None = None,
    folder: str | Path | None = None,
    saved: Checkpoints | None = None,
    reporter: Reporter | None = None,
) -> CircuitInterpretation:
    """Interpret the features of a circuit.

    Args:
        model: The replacement model.
        feature_ids: `[K]` global ids, none twice.
        fap_scores: `[K]` signed FAP scores of the same features.
        prompts: Of the behaviour: edges and steering run on them.
        corpus: Natural text to find contexts in, see `pie_fast.corpora.open_corpus`.
        fresh: Prompts that are not in the corpus, for rules that no edit can make hold.
        metric: Of the behaviour, for the edges to it.
        choices: How much is looked at.
        folder: Where the pass over the corpus is saved, and gone on with; None: nowhere.
        saved: Where edges and tests of rules are; None: nowhere.
        reporter: Shows and times the stages.

    Raises:
        PieFastError: Unequal lengths, or a feature twice.
        CheckpointError: A feature that the CLT does not have.
        CorpusError, BehaviorError: Text that the model cannot read.
    """
    choices, reporter = choices or Choices(), reporter or Reporter()
    order = _order(feature_ids, fap_scores)
    ids, scores = np.asarray(feature_ids)[order], np.asarray(fap_scores)[order]
    vocabulary = Vocabulary(model.host.tokenizer)
    with reporter.stage("corpus") as advance:
        collected = collect(model, corpus, ids, folder=folder, progress=advance, note=reporter.note)
    with reporter.stage("edges") as advance:
        edges = _saved_edges(
            saved,
            lambda: feature_edges(
                model,
                prompts[: choices.edge_prompts],
                ids,
                metric=metric,
                batch_size=choices.batch_size,
                progress=advance,
            ),
            ids.tolist(),
            model.clt.n_features,
        )
    tokens = token_lists(model, ids.tolist(), choices.n_tokens, vocabulary)
    with reporter.stage("rules") as advance:
        explained = []
        for k, lists in enumerate(tokens):
            explained.append(explain_sampled(collected.sampled(k), lists, vocabulary))
            advance(k + 1, len(tokens))
    tests = RuleTests(
        model, prompts[: choices.steered_prompts], fresh, choices.n_concept, choices.seed
    )
    with reporter.stage("quality") as advance:
        quality = _saved_quality(
            saved, lambda: tests.run(collected, explained, tokens, advance), ids.tolist()
        )
    found = [
        replace(
            interpretation_of(edges.features[k], float(scores[k]), explained[k], tokens[k]),
            contexts=shown_contexts(collected, k, choices.n_contexts, vocabulary),
            density=float(collected.density[k]),
            histogram=collected.histogram(k, choices.n_bins),
            n_active_prompts=int(np.count_nonzero(collected.peaks(k))),
            coactive=_coactive(collected, edges, k, choices.n_links),
            fed_by=edges.strongest(k, choices.n_links)[0],
            feeds=edges.strongest(k, choices.n_links)[1],
            quality=quality[k],
        )
        for k in range(len(ids))
    ]
    as_asked = tuple(found[k] for k in np.argsort(order).tolist())
    return CircuitInterpretation(as_asked, collected, edges, narrate(as_asked), choices)


def shown_contexts(
    collected: Collected, k: int, n: int, vocabulary: Vocabulary
) -> tuple[TopContext, ...]:
    """Contexts of feature number `k` with their tokens as text, at most `n` of each kind."""
    return tuple(
        TopContext(
            tuple(map(vocabulary.text, collected.corpus.tokens_of(one.sequence).tolist())),
            one.peak,
            one.activation,
            one.kind,
            tuple(one.activations.tolist()),
            one.source,
        )
        for one in collected.contexts(k, n)
    )


def _saved_edges(
    saved: Checkpoints | None, make: Callable[[], Edges], ids: list[int], n_features: int
) -> Edges:
    """Edges, from disk where they were measured before."""
    if saved is None:
        return make()

    def plain() -> dict[str, Any]:
        made = make()
        arrays = {name: getattr(made, name).tolist() for name in _EDGES}
        return {**arrays, "n_prompts": made.n_prompts}

    found = saved.once("edges", plain, ids)
    features = tuple(FeatureId.from_global(i, n_features) for i in ids)
    arrays = {name: np.array(found[name], np.float64) for name in _EDGES}
    return Edges(features, **arrays, n_prompts=found["n_prompts"])


def _saved_quality(
    saved: Checkpoints | None, make: Callable[[], list[dict[str, Measure]]], ids: list[int]
) -> list[dict[str, Measure]]:
    """Measures of the rules, from disk where they were tested before."""
    if saved is None:
        return make()
    found = saved.once(
        "quality",
        lambda: [{name: asdict(one) for name, one in of.items()} for of in make()],
        ids,
    )
    return [{name: Measure(**one) for name, one in of.items()} for of in found]


def _order(feature_ids: ArrayLike, fap_scores: ArrayLike) -> NDArray[np.int64]:
    ids, scores = np.asarray(feature_ids), np.asarray(fap_scores)
    if ids.shape != scores.shape or ids.ndim != 1 or len(ids) == 0:
        raise PieFastError(
            f"feature_ids has shape {list(ids.shape)} and fap_scores {list(scores.shape)}; "
            "they must be equally many, at least one"
        )
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(np.diff(ids[order]) == 0)
    if again.size:
        raise PieFastError(f"feature {ids[order][again[0]]} is there twice")
    return order


def _coactive(collected: Collected, edges: Edges, k: int, n: int) -> tuple[Link, ...]:
    """The features that fire most often where this one fires; none that never do."""
    share = collected.coactive_share[k].copy()
    share[k] = 0
    order = np.argsort(-share, kind="stable")[:n]
    return tuple(Link(edges.features[i], float(share[i])) for i in order if share[i] > 0)
