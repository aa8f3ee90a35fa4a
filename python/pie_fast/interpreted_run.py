"""A run interpreted: read its result, load what it ran on, write what its features do.

RUN/interpretation.json    what `pie_fast.interpret.circuit` found, and what a language model said
RUN/explanations.jsonl     the labels alone, for others to read (`pie_fast.exchange`)
RUN/contexts/              the pass over each corpus, gone on with where it was stopped
RUN/answers/               of the language model, so that no answer is paid twice
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.behaviors import Behavior, Prompt, check_known, draw_more
from pie_fast.corpora import open_corpus
from pie_fast.discover import versions
from pie_fast.discovered_run import INTERPRETATION, DiscoveredRun
from pie_fast.exchange import apply_labels, read_labels, write_explanations
from pie_fast.interpret.by_llm import LlmChoices, with_llm
from pie_fast.interpret.circuit import Choices, CircuitInterpretation, interpret_circuit
from pie_fast.interpret.passes.corpus_hash import corpus_hash
from pie_fast.outputs import write_json

if TYPE_CHECKING:
    from pie_fast.progress import Reporter
    from pie_fast.replacement_model import ReplacementModel

EXPLANATIONS = "explanations.jsonl"

#: prompts that a built-in behaviour is interpreted on, those of the run among them; and others, for
#: rules that no edit can make hold
N_PROMPTS, N_FRESH = 1000, 100


@dataclass(frozen=True)
class InterpretedRun(DiscoveredRun):
    """A run whose features are told.

    Attributes:
        folder: The run.
    """

    @property
    def result_file(self) -> Path:
        """What `interpret` writes."""
        return self.folder / INTERPRETATION

    def interpret(
        self,
        *,
        specs: Sequence[str] = (),
        max_tokens: int = 1_000_000,
        window: int = 128,
        choices: Choices | None = None,
        llm: LlmChoices | None = None,
        labels: Path | None = None,
        model: str | None = None,
        clt: str | None = None,
        behavior: str | None = None,
        device: str = "auto",
        reporter: Reporter,
    ) -> dict[str, Any]:
        """Interpret the run's features, and write both files.

        Args:
            specs, max_tokens, window: The corpus, see `pie_fast.corpora.open_corpus`.
            choices: How much is looked at.
            llm: What a language model is asked; None asks none.
            labels: A file of labels that replace those of the rules.
            model, clt, behavior: Instead of those that the run names.
            device: Where the model runs.
            reporter: Shows and times the stages.

        Returns:
            What `interpretation.json` holds.
        """
        features, scores = self.features
        others = None if labels is None else read_labels(labels)
        check_known(behavior or self.settings["behavior"])
        with reporter.stage("load"):
            loaded = self.load(model, clt, device)
            found = self.behavior(behavior, loaded)
        reporter.count(lambda: loaded.spent)
        looked_at, fresh = drawn_anew(found, loaded.host.tokenizer)
        corpus = open_corpus(
            specs,
            loaded.host.tokenizer,
            behavior=looked_at,
            window=min(window, loaded.host.n_ctx),
            max_tokens=max_tokens,
            note=reporter.note,
        )
        prompts = found.selection or found.held_out
        circuit = interpret_circuit(
            loaded,
            np.array([f.to_global(loaded.clt.n_features) for f in features]),
            scores,
            prompts,
            corpus,
            fresh=fresh,
            metric=self.settings["metric"],
            choices=choices,
            folder=self.folder / "contexts" / corpus_hash(corpus)[:16],
            reporter=reporter,
        )
        if others is not None:
            circuit = circuit.labelled(apply_labels(circuit.interpretations, others))
        told = None
        if llm is not None:
            circuit, told = with_llm(loaded, circuit, prompts, llm, reporter)
        return self._write(circuit, told, loaded, found, reporter)

    def _write(
        self,
        circuit: CircuitInterpretation,
        told: dict[str, Any] | None,
        loaded: ReplacementModel,
        found: Behavior,
        reporter: Reporter,
    ) -> dict[str, Any]:
        content = {
            **circuit.to_dict(),
            "llm": told,
            "behavior": found.name,
            "model": loaded.host.name,
            "clt": loaded.clt.name,
            "model_calls": {
                name: {"forward": spent.forward, "backward": spent.backward}
                for name, spent in reporter.calls.items()
            },
            "timings": {name: round(spent, 4) for name, spent in reporter.timings.items()},
            "versions": versions(),
        }
        write_explanations(
            self.folder / EXPLANATIONS,
            circuit.interpretations,
            model=loaded.host.name,
            clt=loaded.clt.identity,
        )
        write_json(self.result_file, content)
        return content


def drawn_anew(found: Behavior, tokenizer: Any) -> tuple[Behavior, tuple[Prompt, ...]]:
    """More prompts of a behaviour, to interpret on, and others beside them.

    Returns:
        The behaviour with prompts added until there are 1,000, and at most 100 that are none of
        these. A behaviour of a file stays as it is and has no others.
    """
    missing = max(N_PROMPTS - len(found.selection) - len(found.held_out), 0)
    drawn = draw_more(found, tokenizer, missing + N_FRESH)
    # where the task has no more, nothing is kept for edits
    return replace(found, selection=found.selection + drawn[:missing]), drawn[missing:]
