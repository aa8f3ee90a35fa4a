"""A run interpreted: read its result, load what it ran on, write what its features do.

RUN/interpretation.json    what `pie_fast.interpret.circuit` found, and what a language model said
RUN/explanations.jsonl     the labels alone, for others to read (`pie_fast.exchange`)
RUN/contexts/              the pass over each corpus, gone on with where it was stopped
RUN/answers/               of the language model, so that no answer is paid twice
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.behaviors import Behavior, Prompt, check_known, draw_more
from pie_fast.corpora import open_corpus
from pie_fast.discover import versions
from pie_fast.discovered_run import INTERPRETATION, DiscoveredRun
from pie_fast.exchange import labelled_by, write_explanations
from pie_fast.interpret.by_llm import LlmChoices, with_llm
from pie_fast.interpret.circuit import Choices, CircuitInterpretation, interpret_circuit
from pie_fast.interpret.contexts import Corpus
from pie_fast.interpret.passes.corpus_hash import corpus_hash
from pie_fast.outputs import write_json

if TYPE_CHECKING:
    from pie_fast.engine import Engine
    from pie_fast.progress import Reporter
    from pie_fast.replacement_model import ReplacementModel

EXPLANATIONS = "explanations.jsonl"

#: prompts that a built-in behaviour is interpreted on, those of the run among them; and others, for
#: rules that no edit can make hold
N_PROMPTS, N_FRESH = 1000, 100


@dataclass(frozen=True)
class Text:
    """The corpus beside a behaviour's prompts, see `pie_fast.corpora.open_corpus`.

    Attributes:
        specs: What it is made of.
        max_tokens: At most so many of all.
        window: Tokens that texts are cut into.
    """

    specs: tuple[str, ...] = ()
    max_tokens: int = 1_000_000
    window: int = 128


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
        text: Text | None = None,
        choices: Choices | None = None,
        llm: LlmChoices | None = None,
        labels: Path | None = None,
        model: str | None = None,
        clt: str | None = None,
        behavior: str | None = None,
        device: str = "auto",
        reporter: Reporter,
        engine: Engine | None = None,
    ) -> dict[str, Any]:
        """Interpret the run's features, and write both files.

        Args:
            text: What is looked at beside the behaviour's prompts.
            choices: How much is looked at.
            llm: What a language model is asked; None asks none.
            labels: A file of labels that replace those of the rules.
            model, clt, behavior: Instead of those that the run names.
            device: Where the model runs.
            reporter: Shows and times the stages.
            engine: Whose workers ask the language model; None: this process.

        Returns:
            What `interpretation.json` holds. A dry run of a language model writes nothing.
        """
        text = text or Text()
        features, scores = self.features
        if llm is not None:
            llm.check()
        check_known(behavior or self.settings["behavior"])
        with reporter.stage("load"):
            loaded = self.load(model, clt, device)
            found = self.behavior(behavior, loaded)
        reporter.count(lambda: loaded.spent)
        corpus, fresh = self._text(loaded, found, text, reporter)
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
            folder=self.folder / "contexts" / _pass_name(loaded, corpus),
            reporter=reporter,
        )
        if labels is not None:
            others = labelled_by(labels, circuit.interpretations, clt=loaded.clt.identity)
            circuit = circuit.labelled(others)
        made = {**asdict(text), "labels": labels and str(labels), "behavior": found.name}
        content = _content(circuit, None, made, loaded, reporter)
        if llm is None:
            return self._write(circuit, content, loaded)
        if not llm.dry_run:  # what rules found is kept, whatever becomes of the language model
            self._write(circuit, content, loaded)
        circuit, told = with_llm(loaded, circuit, prompts, llm, reporter, engine)
        content = _content(circuit, told, made, loaded, reporter)
        return content if llm.dry_run else self._write(circuit, content, loaded)

    @staticmethod
    def _text(
        loaded: ReplacementModel, found: Behavior, text: Text, reporter: Reporter
    ) -> tuple[Corpus, tuple[Prompt, ...]]:
        """The corpus, and prompts of the behaviour that are not in it."""
        looked_at, others = drawn_anew(found, loaded.host.tokenizer)
        if text.window > loaded.host.n_ctx:
            reporter.note(
                f"windows of {loaded.host.n_ctx} tokens, not {text.window}: the model's context"
            )
        corpus = open_corpus(
            text.specs,
            loaded.host.tokenizer,
            behavior=looked_at,
            window=min(text.window, loaded.host.n_ctx),
            max_tokens=text.max_tokens,
            note=reporter.note,
        )
        known = {tuple(corpus.tokens_of(i).tolist()) for i in range(corpus.n_prompts)}
        return corpus, tuple(prompt for prompt in others if prompt.tokens not in known)

    def _write(
        self, circuit: CircuitInterpretation, content: dict[str, Any], loaded: ReplacementModel
    ) -> dict[str, Any]:
        write_explanations(
            self.folder / EXPLANATIONS,
            circuit.interpretations,
            model=loaded.host.name,
            clt=loaded.clt.identity,
        )
        write_json(self.result_file, content)
        return content


def _pass_name(loaded: ReplacementModel, corpus: Corpus) -> str:
    """A folder for each corpus, model and CLT, so that no pass stands in the way of another."""
    parts = (corpus_hash(corpus), loaded.host.name, loaded.clt.identity, str(loaded.device))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _content(
    circuit: CircuitInterpretation,
    told: dict[str, Any] | None,
    made: dict[str, Any],
    loaded: ReplacementModel,
    reporter: Reporter,
) -> dict[str, Any]:
    """What `interpretation.json` holds."""
    return {
        **circuit.to_dict(),
        "llm": told,
        "settings": {
            **made,
            **asdict(circuit.choices),
            "corpus_hash": corpus_hash(circuit.collected.corpus),
        },
        "model": loaded.host.name,
        "clt": loaded.clt.name,
        "model_calls": {
            name: {"forward": spent.forward, "backward": spent.backward}
            for name, spent in reporter.calls.items()
        },
        "timings": {name: round(spent, 4) for name, spent in reporter.timings.items()},
        "versions": versions(),
    }


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
