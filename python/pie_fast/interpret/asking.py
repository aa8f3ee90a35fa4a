"""One round of questions about a circuit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from pie_fast.behaviors import Prompt
from pie_fast.behaviors.drafting import encode
from pie_fast.interpret.circuit import CircuitInterpretation, shown_contexts
from pie_fast.interpret.fade import Fade, Settings, fade
from pie_fast.interpret.fade.steered import continuations
from pie_fast.interpret.llm_choices import LlmChoices
from pie_fast.interpret.passes.collecting import peaks_of
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Interpretation
from pie_fast.llm import Chat, LlmExplainer, LlmNarrator, LlmRater, LlmScorer, LlmWriter
from pie_fast.model import Replacer
from pie_fast.progress import Reporter


class Asking:
    """One round of questions."""

    def __init__(
        self,
        model: Replacer,
        circuit: CircuitInterpretation,
        prompts: Sequence[Prompt],
        choices: LlmChoices,
        chat: Chat,
        reporter: Reporter,
    ) -> None:
        self.model, self.circuit, self.chat = model, circuit, chat
        self.prompts = prompts[: circuit.choices.steered_prompts]
        self.choices, self.reporter = choices, reporter
        self.rated: dict[Any, Fade] = {}
        self.narrative: dict[str, Any] | None = None

    def run(self) -> CircuitInterpretation:
        """Ask everything."""
        found = list(self.circuit.interpretations)
        if self.choices.explain:
            with self.reporter.stage("explain") as advance:
                found = LlmExplainer(self.chat).explain(found, advance)
        with self.reporter.stage("score") as advance:
            for number, one in enumerate(found):
                found[number] = replace(one, quality={**one.quality, **self._scores(one)})
                advance(number + 1, len(found))
        if self.choices.fade:
            with self.reporter.stage("rate") as advance:
                for number, one in enumerate(found):
                    self.rated[one.feature] = rated = self._fade(one)
                    found[number] = replace(one, quality={**one.quality, **rated.measures})
                    advance(number + 1, len(found))
        with self.reporter.stage("narrate"):
            story = LlmNarrator(self.chat).narrate(found)
        self.narrative = None if story is None else asdict(story)
        return replace(self.circuit, interpretations=tuple(found))

    def _scores(self, one: Interpretation) -> dict[str, Any]:
        """Detection and fuzzing, on contexts that the label was not made from."""
        k = self.circuit.place_of(one.feature)
        # what is shown was seen by whoever wrote the label: the scorer leaves it out
        n = self.choices.n_scored + self.circuit.choices.n_contexts
        vocabulary = Vocabulary(self.model.host.tokenizer)
        contexts = shown_contexts(self.circuit.collected, k, n, vocabulary)
        active = [c for c in contexts if c.kind != "silent"]
        silent = [c for c in contexts if c.kind == "silent"]
        return LlmScorer(self.chat).score(one, active, silent)

    def _fade(self, one: Interpretation) -> Fade:
        collected, k = self.circuit.collected, self.circuit.place_of(one.feature)
        natural = collected.peaks(k)
        host, ids = self.model.host, collected.ids[k : k + 1]

        def peaks(texts: Sequence[str]) -> Any:
            read = [encode(host.tokenizer, text)[: host.n_ctx] for text in texts]
            return peaks_of(self.model, read, ids)[:, 0]

        def steer() -> dict[float, list[str]]:
            most = float(np.abs(natural).max())
            written = continuations(self.model, one.feature, most, self.prompts)
            return {factor: [c.text for c in some] for factor, some in written.items()}

        return fade(
            one.label,
            natural,
            text_of=lambda s: str(
                host.tokenizer.decode(
                    collected.corpus.tokens_of(s).tolist(), skip_special_tokens=True
                )
            ),
            peaks_of=peaks,
            steer=steer,
            rater=LlmRater(self.chat),
            writer=LlmWriter(self.chat),
            settings=Settings(n_rated=self.choices.n_rated, n_written=self.choices.n_written),
        )
