"""What a language model says of a circuit: labels, their scores, and the story of the whole.

    labels                from contexts, tokens and neighbours
    detection, fuzzing    on held-out contexts (Delphi)
    FADE                  on sequences, where it is asked for: the costly part
    narrative             from all labels

What it will cost is told before, what it has cost after. A question without an answer is reported,
never dropped: the feature keeps the rule's label, the measure says why it has no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pie_fast.behaviors import Prompt
from pie_fast.behaviors.drafting import encode
from pie_fast.interpret.circuit import CircuitInterpretation, shown_contexts
from pie_fast.interpret.fade import Fade, Settings, fade
from pie_fast.interpret.fade.steered import continuations
from pie_fast.interpret.passes.collecting import peaks_of
from pie_fast.interpret.vocabulary import Vocabulary
from pie_fast.interpretation import Interpretation
from pie_fast.llm import (
    Chat,
    LlmExplainer,
    LlmNarrator,
    LlmRater,
    LlmScorer,
    LlmWriter,
    Price,
)
from pie_fast.model import Replacer
from pie_fast.progress import Reporter


@dataclass(frozen=True)
class LlmChoices:
    """Which language model, and what it is asked.

    Attributes:
        model: Its name at the endpoint.
        cache: Folder of its answers.
        base_url: Of the endpoint; None as `pie_fast.llm.Chat` has it.
        key_variable: The environment variable that holds the key.
        concurrency: Requests at a time.
        price: Of a million tokens in and out; None tells tokens only.
        dry_run: Send nothing, tell what would be asked.
        explain: Whether it writes the labels; else it judges those of the rules.
        fade: Whether it rates texts, for FADE.
        n_rated: Texts that it rates of a feature.
        n_written: Texts that it writes for a feature.
        n_scored: Contexts of each kind for detection and fuzzing.
    """

    model: str
    cache: Path
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    price: tuple[float, float] | None = None
    dry_run: bool = False
    explain: bool = True
    fade: bool = False
    n_rated: int = 100
    n_written: int = 30
    n_scored: int = 10

    def chat(self, reporter: Reporter, *, dry_run: bool) -> Chat:
        """A way to it."""
        return Chat(
            self.model,
            cache=self.cache,
            base_url=self.base_url,
            key_variable=self.key_variable,
            concurrency=self.concurrency,
            price=None if self.price is None else Price(*self.price),
            dry_run=dry_run,
            note=reporter.note,
        )


def with_llm(
    model: Replacer,
    circuit: CircuitInterpretation,
    prompts: Sequence[Prompt],
    choices: LlmChoices,
    reporter: Reporter,
) -> tuple[CircuitInterpretation, dict[str, Any]]:
    """Ask a language model about a circuit.

    Args:
        model: The replacement model; it is steered for FADE.
        circuit: Interpreted by rules.
        prompts: That are continued under steering.
        choices: What is asked.
        reporter: Shows and times the stages.

    Returns:
        The circuit with labels and measures of the language model, and what asking took.

    Raises:
        UnusableError: The endpoint answers nothing.
    """
    with choices.chat(reporter, dry_run=True) as planned:
        _Asking(model, circuit, prompts, choices, planned, Reporter()).run()
    reporter.note(f"{choices.model}: {planned.budget.told(planned.price)}")
    if choices.dry_run:
        return circuit, {"model": choices.model, "dry_run": True, **asdict(planned.budget)}
    with choices.chat(reporter, dry_run=False) as chat:
        asking = _Asking(model, circuit, prompts, choices, chat, reporter)
        told = asking.run()
    reporter.note(f"{choices.model}: {chat.spent.told(chat.price)}")
    if chat.failures:
        reporter.note(
            f"{len(chat.failures)} questions have no answer, the first: {chat.failures[0]}"
        )
    return told, {
        "model": choices.model,
        "dry_run": False,
        "spent": asdict(chat.spent),
        "cost": chat.cost,
        "failures": [asdict(failure) for failure in chat.failures],
        "fade": {str(feature): one.to_dict() for feature, one in asking.rated.items()},
        "narrative": asking.narrative,
    }


class _Asking:
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
