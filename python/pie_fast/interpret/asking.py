"""One round of questions about a circuit, several features at a time; the model runs for one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pie_fast.behaviors import Prompt
from pie_fast.behaviors.drafting import encode
from pie_fast.interpret.circuit import CircuitInterpretation
from pie_fast.interpret.fade import Fade, Settings, fade
from pie_fast.interpret.fade.scores import passes
from pie_fast.interpret.fade.steered import FACTORS, continuations
from pie_fast.interpret.held_out import held_out_contexts
from pie_fast.interpret.llm_choices import LlmChoices
from pie_fast.interpret.passes.collecting import peaks_of
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Interpretation, Measure
from pie_fast.llm import Chat, LlmExplainer, LlmNarrator, LlmRater, LlmScorer, LlmWriter
from pie_fast.llm.description import UNDESCRIBED, description_of
from pie_fast.model import Replacer
from pie_fast.progress import Reporter

_FADE = tuple(f"{name}_llm" for name in ("clarity", "responsiveness", "purity", "faithfulness"))


class Asking:
    """One round of questions.

    In a dry run the model is left alone, and what depends on it counts at its most.

    Args:
        model: The replacement model; it is steered for FADE.
        circuit: Interpreted by rules.
        prompts: That are continued under steering.
        choices: What is asked.
        chat: The language model.
        reporter: Shows and times the stages.

    Attributes:
        rated: Feature -> what FADE read for it.
        narrative: The story of the whole in plain values; None where there is none.
    """

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
        n_steered = choices.n_steered
        self.prompts = prompts[
            : circuit.choices.steered_prompts if n_steered is None else n_steered
        ]
        self.choices, self.reporter = choices, reporter
        self.rated: dict[Any, Fade] = {}
        self.narrative: dict[str, Any] | None = None
        self._vocabulary = Vocabulary(model.host.tokenizer)
        self._alone = threading.Lock()  # whoever runs the model or its tokenizer

    def run(self) -> CircuitInterpretation:
        """Ask everything."""
        found = list(self.circuit.interpretations)
        if self.choices.explain:
            with self.reporter.stage("explain") as advance:
                found = LlmExplainer(self.chat).explain(found, advance)
        with self.reporter.stage("score") as advance:
            found = _measured(found, self.chat.each(self._scores, found, advance))
        if self.choices.fade:
            with self.reporter.stage("rate") as advance:
                rated = self.chat.each(self._fade, found, advance)
            none = dict.fromkeys(_FADE, UNDESCRIBED)
            found = _measured(found, [none if one is None else one.measures for one in rated])
            pairs = zip(found, rated, strict=True)
            self.rated = {one.feature: fade for one, fade in pairs if fade is not None}
        with self.reporter.stage("narrate"):
            story = LlmNarrator(self.chat).narrate(found)
        self.narrative = None if story is None else asdict(story)
        return replace(self.circuit, interpretations=tuple(found))

    def _scores(self, one: Interpretation) -> dict[str, Measure]:
        """Detection and fuzzing, on contexts that the label was not made from."""
        with self._alone:
            contexts = held_out_contexts(
                self.circuit.collected,
                self.circuit.place_of(one.feature),
                self._vocabulary,
                by_rules=one.explainer == "rules",
                n_shown=self.circuit.choices.n_contexts,
                n=self.choices.n_scored,
            )
        active = [c for c in contexts if c.kind != "silent"]
        silent = [c for c in contexts if c.kind == "silent"]
        return LlmScorer(self.chat, seed=self.circuit.choices.seed).score(one, active, silent)

    def _fade(self, one: Interpretation) -> Fade | None:
        """None where nothing describes the feature."""
        description, about = description_of(one), str(one.feature)
        if description is None:
            return None
        k = self.circuit.place_of(one.feature)
        natural = self.circuit.collected.peaks(k)
        rater = LlmRater(self.chat, about=about)
        settings = Settings(
            n_rated=self.choices.n_rated,
            n_written=self.choices.n_written,
            seed=self.circuit.choices.seed,
        )
        rated = fade(
            description,
            natural,
            text_of=self._text,
            peaks_of=lambda texts: self._peaks(k, texts),
            steer=lambda: self._continued(one.feature, float(np.abs(natural).max())),
            rater=rater,
            writer=LlmWriter(self.chat, about=about),
            settings=settings,
        )
        responsive = rated.measures["responsiveness_llm"]
        may_pass = rated.natural.unrated or passes(responsive, responsive, settings.gate)
        if self.chat.dry_run and may_pass:  # Clarity is not known
            for _ in FACTORS:
                rater.expect(description, len(self.prompts))
        return rated

    def _text(self, sequence: int) -> str:
        tokens = self.circuit.collected.corpus.tokens_of(sequence).tolist()
        with self._alone:
            return str(self.model.host.tokenizer.decode(tokens, skip_special_tokens=True))

    def _peaks(self, k: int, texts: Sequence[str]) -> NDArray[np.float32]:
        """`a(s)` of written texts."""
        if self.chat.dry_run:
            return np.zeros(len(texts), dtype=np.float32)
        host = self.model.host
        with self._alone:
            self.chat.check_going()
            read = [encode(host.tokenizer, text)[: host.n_ctx] for text in texts]
            return peaks_of(self.model, read, self.circuit.collected.ids[k : k + 1])[:, 0]

    def _continued(self, feature: Any, strongest: float) -> dict[float, list[str]]:
        """By factor, what the steered model writes; nothing where no prompts are steered."""
        if self.chat.dry_run or not self.prompts:
            return {0.0: []}
        with self._alone:
            self.chat.check_going()
            written = continuations(self.model, feature, strongest, self.prompts)
        return {factor: [one.text for one in some] for factor, some in written.items()}


def _measured(
    interpretations: Sequence[Interpretation], quality: Sequence[dict[str, Measure]]
) -> list[Interpretation]:
    pairs = zip(interpretations, quality, strict=True)
    return [replace(one, quality={**one.quality, **more}) for one, more in pairs]
