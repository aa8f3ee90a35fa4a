"""Rules put to the test with the model: texts made to meet them, and features steered.

Clarity needs positions that meet the rule on purpose: held-out prompts minimally edited until they
do, then fresh prompts of the behaviour where it holds, until there are enough. All features' texts
run in one pass. Faithfulness waits for Clarity and Responsiveness, as FADE has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pie_fast.behaviors import Prompt
from pie_fast.interpret.contexts import Corpus
from pie_fast.interpret.explained import Explained, TokenLists
from pie_fast.interpret.fade.scores import passes
from pie_fast.interpret.passes.collected import Collected
from pie_fast.interpret.passes.collecting import activations_of
from pie_fast.interpret.rule_faithfulness import rule_faithfulness
from pie_fast.interpret.rules import Rule
from pie_fast.interpret.rules.edits import Made, edited, holding
from pie_fast.interpret.rules.facts import Facts
from pie_fast.interpret.rules.quality import rule_measures
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Measure
from pie_fast.model import Replacer
from pie_fast.progress import Advance
from pie_fast.types import FeatureId

#: what Clarity and Responsiveness must reach for Faithfulness (FADE's)
GATE = 0.5


@dataclass(frozen=True)
class RuleTests:
    """How rules are tested.

    Attributes:
        model: The replacement model.
        steered: Prompts that are steered; none leaves Faithfulness out.
        fresh: Prompts that are not in the corpus.
        n_concept: Positions that are made to meet a rule.
        seed: Of edits.
    """

    model: Replacer
    steered: Sequence[Prompt]
    fresh: Sequence[Prompt]
    n_concept: int
    seed: int

    def run(
        self,
        collected: Collected,
        explained: Sequence[Explained],
        tokens: Sequence[TokenLists],
        advance: Advance,
    ) -> list[dict[str, Measure]]:
        """The measures of every feature's rule, by name.

        Args:
            collected: What the pass over the corpus kept of the K features.
            explained: `[K]` rules with what they were mined on.
            tokens: `[K]` tokens that they write to.
            advance: Told of features done.
        """
        concepts = self.concepts(collected, explained, tokens)
        found: list[dict[str, Measure]] = []
        for k, one in enumerate(explained):
            if one.rule is None:
                found.append({})
                continue
            measures = rule_measures(
                one.rule, one.facts, one.activity, concept=concepts[k], weights=one.weights
            )
            feature = FeatureId.from_global(int(collected.ids[k]), self.model.clt.n_features)
            strongest = float(np.abs(collected.peaks(k)).max())
            measures["faithfulness_rule"] = self._faithfulness(
                feature, strongest, one.rule, tokens[k], measures
            )
            found.append(measures)
            advance(k + 1, len(explained))
        return found

    def concepts(
        self,
        collected: Collected,
        explained: Sequence[Explained],
        tokens: Sequence[TokenLists],
    ) -> list[NDArray[np.float32] | None]:
        """Activations where each rule was made to hold, `[n]` float32; None where it could not be.

        Args:
            collected, explained, tokens: As in `run`.
        """
        vocabulary = Vocabulary(self.model.host.tokenizer)
        fresh = Facts.of(Corpus.of(self.fresh), vocabulary) if self.fresh else None
        places: list[tuple[int, int]] = []
        sequences: list[tuple[int, ...]] = []
        for k, one in enumerate(explained):
            promoted = [token.token_id for token in tokens[k].promoted]
            for made in self._made(one, vocabulary, fresh, promoted):
                sequences += made.sequences
                places += [(k, position) for position in made.positions]
        values: list[list[float]] = [[] for _ in explained]
        if sequences:
            ran = activations_of(self.model, sequences, collected.ids)
            for (k, position), activations in zip(places, ran, strict=True):
                values[k].append(float(activations[position, k]))
        return [np.array(some, dtype=np.float32) if some else None for some in values]

    def _made(
        self, one: Explained, vocabulary: Vocabulary, fresh: Facts | None, promoted: list[int]
    ) -> Iterator[Made]:
        if one.rule is None or self.n_concept == 0:
            return
        n = self.n_concept
        made = edited(
            one.rule, one.facts, one.activity, vocabulary, n, promoted=promoted, seed=self.seed
        )
        yield made
        missing = n - len(made.sequences)
        if missing and fresh is not None:
            yield holding(one.rule, fresh.with_promoted(promoted), missing, seed=self.seed)

    def _faithfulness(
        self,
        feature: FeatureId,
        strongest: float,
        rule: Rule,
        tokens: TokenLists,
        measures: dict[str, Measure],
    ) -> Measure:
        if not self.steered:
            return Measure(None, why="no prompts were steered")
        if not passes(measures["clarity_rule"], measures["responsiveness_rule"], GATE):
            return Measure(None, why="gate not passed")
        promoted = [token.token_id for token in tokens.promoted]
        return rule_faithfulness(self.model, feature, strongest, rule, promoted, self.steered)
