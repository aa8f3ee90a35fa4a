"""A run interpreted: read its result, load what it ran on, write what its features do.

RUN/interpretation.json    what `pie_fast.interpret.circuit` found, and what a language model said
RUN/journal.jsonl          when, in what time, with how many model calls and at what price
RUN/explanations.jsonl     the labels alone, for others to read (`pie_fast.exchange`)
RUN/contexts/              the pass over each corpus, gone on with where it was stopped
RUN/answers/               of the language model, so that no answer is paid twice
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pie_fast.behaviors import Behavior, Prompt, check_known, draw_more
from pie_fast.checkpoints import Checkpoints
from pie_fast.corpora import open_corpus
from pie_fast.discovered_run import INTERPRETATION, DiscoveredRun
from pie_fast.exchange import labelled_by, write_explanations
from pie_fast.identity import versions
from pie_fast.interpret.by_llm import LlmChoices, with_llm
from pie_fast.interpret.circuit import Choices, CircuitInterpretation, interpret_circuit
from pie_fast.interpret.contexts import Corpus
from pie_fast.interpret.passes.corpus_hash import corpus_hash
from pie_fast.journal import begin, locked
from pie_fast.outputs import write_json
from pie_fast.storage import remove_leftovers

if TYPE_CHECKING:
    from pie_fast.engine import Engine
    from pie_fast.progress import Reporter
    from pie_fast.replacement_model import ReplacementModel

EXPLANATIONS = "explanations.jsonl"

#: of a language model, what stands in the journal
_PAID = ("spent", "cost")

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
        command: Sequence[str] | None = None,
        asked: Mapping[str, Any] | None = None,
        resume: bool = False,
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
            command: The command line that asks for it, to be recorded.
            asked: What `pie-fast resume` needs to ask for it again.
            resume: Refuse to go on with what was begun otherwise.
            reporter: Shows and times the stages.
            engine: Whose workers ask the language model; None: this process.

        Returns:
            What `interpretation.json` holds, with what this process spent. A dry run of a language
            model writes nothing.

        Raises:
            RunInUseError: Another process works on the run.
            JournalError: What is resumed was begun with another model, text or version.
        """
        text = text or Text()
        if llm is not None:
            llm.check()
        check_known(behavior or self.settings["behavior"])
        with reporter.stage("load"):
            loaded = self.load(model, clt, device)
            found = self.behavior(behavior, loaded)
        reporter.count(lambda: loaded.spent)
        corpus, fresh = self._text(loaded, found, text, reporter)
        made = {**asdict(text), "labels": labels and str(labels), "behavior": found.name}
        made |= asdict(choices or Choices()) | {"corpus_hash": corpus_hash(corpus)}
        work = _Work(
            self, loaded, found, corpus, fresh, choices, llm, labels, made, reporter, engine
        )
        if llm is not None and llm.dry_run:
            return work.run(None)
        with locked(self.folder, reporter.note) as journal:
            remove_leftovers(self.folder)
            begun = begin(
                journal,
                "interpret",
                work.identity(),
                command=command,
                asked=asked,
                threads=torch.get_num_threads(),
                resume=resume,
                note=reporter.note,
            )
            saved = Checkpoints(journal, reporter.note, of=begun["identity"])
            content = work.run(begun["command"], saved)
            saved.clear()
            spent = {key: content[key] for key in ("timings", "model_calls")}
            if content["llm"] is not None:
                spent["llm"] = {key: content["llm"][key] for key in _PAID}
            journal.write("finished", name="interpret", spent=spent)
        return content

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


@dataclass(frozen=True)
class _Work:
    """One interpretation of a run."""

    run_of: InterpretedRun
    loaded: ReplacementModel
    behavior: Behavior
    corpus: Corpus
    fresh: tuple[Prompt, ...]
    choices: Choices | None
    llm: LlmChoices | None
    labels: Path | None
    made: Mapping[str, Any]
    reporter: Reporter
    engine: Engine | None

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of its result."""
        asked = None if self.llm is None else {**asdict(self.llm), "cache": str(self.llm.cache)}
        return {
            **self.made,
            "model": self.loaded.host.name,
            "clt": self.loaded.clt.identity,
            "device": self.loaded.device.type,
            "behavior_hash": self.behavior.hash,
            "llm": asked,
            "versions": versions(),
        }

    def run(
        self, command: Sequence[str] | None, saved: Checkpoints | None = None
    ) -> dict[str, Any]:
        """Interpret and write; a dry run of a language model writes nothing."""
        features, scores = self.run_of.features
        loaded, prompts = self.loaded, self.behavior.selection or self.behavior.held_out
        circuit = interpret_circuit(
            loaded,
            np.array([f.to_global(loaded.clt.n_features) for f in features]),
            scores,
            prompts,
            self.corpus,
            fresh=self.fresh,
            metric=self.run_of.settings["metric"],
            choices=self.choices,
            folder=self.run_of.folder / "contexts" / _pass_name(loaded, self.corpus),
            saved=saved,
            reporter=self.reporter,
        )
        if self.labels is not None:
            others = labelled_by(self.labels, circuit.interpretations, clt=loaded.clt.identity)
            circuit = circuit.labelled(others)
        dry = self.llm is not None and self.llm.dry_run
        told = None
        if self.llm is not None:
            if not dry:  # what rules found is kept, whatever becomes of the language model
                self._write(circuit, self._content(circuit, None, command))
            circuit, told = with_llm(loaded, circuit, prompts, self.llm, self.reporter, self.engine)
        content = self._content(circuit, told, command)
        if not dry:
            self._write(circuit, content)
        return content | {
            "model_calls": {
                name: {"forward": spent.forward, "backward": spent.backward}
                for name, spent in self.reporter.calls.items()
            },
            "timings": {name: round(spent, 4) for name, spent in self.reporter.timings.items()},
        }

    def _content(
        self,
        circuit: CircuitInterpretation,
        told: dict[str, Any] | None,
        command: Sequence[str] | None,
    ) -> dict[str, Any]:
        """What `interpretation.json` holds, and what the language model was paid."""
        return {
            **circuit.to_dict(),
            "llm": told,
            "settings": self.made,
            "model": self.loaded.host.name,
            "clt": self.loaded.clt.name,
            "versions": versions(),
            "command": command,
        }

    def _write(self, circuit: CircuitInterpretation, content: dict[str, Any]) -> None:
        write_explanations(
            self.run_of.folder / EXPLANATIONS,
            circuit.interpretations,
            model=self.loaded.host.name,
            clt=self.loaded.clt.identity,
        )
        told = content["llm"]
        if told is not None:  # what an answer cost is by chance: it may have been there already
            told = {key: value for key, value in told.items() if key not in _PAID}
        write_json(self.run_of.result_file, {**content, "llm": told})


def _pass_name(loaded: ReplacementModel, corpus: Corpus) -> str:
    """A folder for each corpus, model and CLT, so that no pass stands in the way of another."""
    parts = (corpus_hash(corpus), loaded.host.name, loaded.clt.identity, str(loaded.device))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


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
