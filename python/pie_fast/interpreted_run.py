"""A run interpreted: read its result, load what it ran on, write what its features do.

RUN/interpretation.json    what `pie_fast.interpret.circuit` found, and what a language model said
RUN/explanations.jsonl     the labels alone, for others to read (`pie_fast.exchange`)
RUN/contexts/              the pass over the corpus, gone on with where it was stopped
RUN/answers/               of the language model, so that no answer is paid twice
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pie_fast.behaviors import Behavior, Prompt, check_known, draw_more, load_behavior
from pie_fast.corpora import open_corpus
from pie_fast.discover import versions
from pie_fast.errors import PieFastError
from pie_fast.exchange import apply_labels, read_labels, write_explanations
from pie_fast.interpret.by_llm import LlmChoices, with_llm
from pie_fast.interpret.circuit import Choices, CircuitInterpretation, interpret_circuit
from pie_fast.outputs import RESULT, write_json
from pie_fast.replacement_model import ReplacementModel, load_model
from pie_fast.types import FeatureId

if TYPE_CHECKING:
    from pie_fast.progress import Reporter

INTERPRETATION, EXPLANATIONS = "interpretation.json", "explanations.jsonl"

#: prompts that a built-in behaviour is interpreted on, those of the run among them; and others, for
#: rules that no edit can make hold
N_PROMPTS, N_FRESH = 1000, 100

_NEEDED = {
    "model": str,
    "clt": str,
    "behavior": str,
    "behavior_seed": int,
    "behavior_hash": str,
    "n_selection": int,
    "n_held_out": int,
    "metric": str,
    "hooks": list,
}


@dataclass(frozen=True)
class InterpretedRun:
    """A folder that `discover` made.

    Attributes:
        folder: The run.
    """

    folder: Path

    @property
    def result_file(self) -> Path:
        """What `interpret` writes."""
        return self.folder / INTERPRETATION

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How the run was made.

        Raises:
            PieFastError: There is no result, or it lacks a setting.
        """
        settings = self._result.get("settings")
        if not isinstance(settings, dict):
            raise PieFastError(f"{self._file}: settings is {settings!r}, must be an object")
        for name, kind in _NEEDED.items():
            if not isinstance(settings.get(name), kind):
                raise PieFastError(
                    f"{self._file}: settings.{name} is {settings.get(name)!r}, "
                    f"must be of type {kind.__name__}"
                )
        return settings

    @cached_property
    def features(self) -> tuple[list[FeatureId], list[float]]:
        """The features interpreted by the run, and their signed FAP scores.

        Raises:
            PieFastError: The result has none, or one that is broken.
        """
        rows = self._result.get("interpretations")
        if not isinstance(rows, list) or not rows:
            raise PieFastError(f"{self._file}: has no list 'interpretations'")
        features, scores = [], []
        for number, row in enumerate(rows):
            try:
                features.append(FeatureId(int(row["layer"]), int(row["index"])))
                scores.append(float(row["fap_score"]))
            except (KeyError, TypeError, ValueError) as error:
                raise PieFastError(
                    f"{self._file}: interpretations[{number}] needs layer, index and fap_score: "
                    f"{error!r}"
                ) from error
        return features, scores

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
            loaded = self._load(model, clt, device)
            found = self._behavior(behavior, loaded)
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
            folder=self.folder / "contexts",
            reporter=reporter,
        )
        if others is not None:
            circuit = circuit.labelled(apply_labels(circuit.interpretations, others))
        told = None
        if llm is not None:
            circuit, told = with_llm(loaded, circuit, prompts, llm, reporter)
        return self._write(circuit, told, loaded, found, reporter)

    def _load(self, model: str | None, clt: str | None, device: str) -> ReplacementModel:
        import torch

        dtype = self.settings.get("dtypes", {}).get("model", "float32")
        return load_model(
            model or self.settings["model"],
            clt or self.settings["clt"],
            device=device,
            dtype=getattr(torch, dtype),
            ignore_positions=self.settings.get("ignore_positions", "auto"),
            hooks=tuple(self.settings["hooks"]),
        )

    def _behavior(self, name: str | None, loaded: ReplacementModel) -> Behavior:
        settings = self.settings
        found = load_behavior(
            name or settings["behavior"],
            tokenizer=loaded.host.tokenizer,
            seed=settings["behavior_seed"],
            n_selection=settings["n_selection"],
            n_held_out=settings["n_held_out"],
        )
        if name is None and found.hash != settings["behavior_hash"]:
            raise PieFastError(
                f"behaviour {found.name} is not the one of {self._file}: its hash is "
                f"{found.hash[:12]}, the run's {settings['behavior_hash'][:12]}; name it by "
                "--behavior to interpret on it all the same"
            )
        found.check_fits(loaded.host.vocab_size, loaded.host.n_ctx)
        return found

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

    @property
    def _file(self) -> Path:
        return self.folder / RESULT

    @cached_property
    def _result(self) -> dict[str, Any]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PieFastError(f"{self.folder} is not a run: it has no {RESULT}") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PieFastError(f"{self._file}: not valid JSON: {error}") from error
        if not isinstance(content, dict):
            raise PieFastError(f"{self._file}: holds a {type(content).__name__}, must be an object")
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
