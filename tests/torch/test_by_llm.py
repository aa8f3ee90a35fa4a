"""A circuit of the demo model, judged by a scripted language model."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pie_fast.behaviors import Prompt, load_behavior
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.interpret import Corpus, Vocabulary
from pie_fast.interpret.by_llm import LlmChoices, with_llm
from pie_fast.interpret.circuit import Choices, CircuitInterpretation, interpret_circuit
from pie_fast.interpret.held_out import held_out_contexts
from pie_fast.interpret.passes.collecting import peaks_of
from pie_fast.interpret.rules.parts import REPORTING, parts_of_prompts
from pie_fast.progress import Reporter
from pie_fast.replacement_model import ReplacementModel, load_model
from scripted_server import Body, Reply, data_of, serving

K = 4
FADE = ("clarity_llm", "responsiveness_llm", "purity_llm", "faithfulness_llm")


@pytest.fixture(scope="module")
def model() -> ReplacementModel:
    return load_model(demo_model_path(), demo_clt_path(), device="cpu")


@pytest.fixture(scope="module")
def prompts(model: ReplacementModel) -> tuple[Prompt, ...]:
    return load_behavior("ioi", tokenizer=model.host.tokenizer, n_prompts=80).selection


@pytest.fixture(scope="module")
def circuit(model: ReplacementModel, prompts: tuple[Prompt, ...]) -> CircuitInterpretation:
    """Features that fire in about half of the prompts, and that rules find different words for."""
    ids = np.arange(model.clt.n_layers * model.clt.n_features)
    active = (peaks_of(model, [p.tokens for p in prompts], ids) != 0).mean(0)
    some = np.flatnonzero((active > 0.3) & (active < 0.6))[: 3 * K]
    corpus, choices = Corpus.of(prompts), Choices(n_concept=0, steered_prompts=2, n_contexts=2)
    ones = np.ones(len(some))
    found = interpret_circuit(model, some, ones, prompts, corpus, choices=choices)
    by_text = {one.rule["text"]: k for k, one in enumerate(found.interpretations) if one.rule}
    ids = some[sorted(by_text.values())[:K]]
    return interpret_circuit(model, ids, np.ones(K), prompts, corpus, choices=choices)


class Notes(Reporter):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def texts_of(circuit: CircuitInterpretation, model: ReplacementModel) -> list[str]:
    corpus = circuit.collected.corpus
    return [
        str(model.host.tokenizer.decode(corpus.tokens_of(s).tolist(), skip_special_tokens=True))
        for s in range(corpus.n_prompts)
    ]


def oracle(
    circuit: CircuitInterpretation, model: ReplacementModel, delay: float
) -> Callable[[Body, int], Reply]:
    """Rates a natural text by what the feature does there; knows features by their rules' words."""
    texts = texts_of(circuit, model)
    peaks = {}
    for one in circuit.interpretations:
        assert one.rule is not None
        strength = circuit.collected.peaks(circuit.place_of(one.feature))
        peaks[one.rule["text"]] = dict(zip(texts, strength.tolist(), strict=True))

    def rating(peak: float | None, text: str) -> int:
        return len(text) % 3 if peak is None else 2 * (peak != 0)

    def script(body: Body, n: int) -> Reply:
        system, data = body["messages"][0]["content"], data_of(body)
        if '"layers"' not in system and data[0] not in peaks:
            return Reply(status=400)  # not words of a rule
        if '"texts"' in system:
            natural = peaks[data[0]]
            written = sorted(natural, key=lambda text: -abs(natural[text]))
            answer: Any = {"texts": written[:12]}
        elif "how far" in system:
            natural = peaks[data[0]]
            answer = {"ratings": {i: rating(natural.get(t), t) for i, t in data[1].items()}}
        else:
            return Reply(delay=delay)
        return Reply(json.dumps(answer), delay=delay)

    return script


def choices(cache: Path, url: str, **options: Any) -> LlmChoices:
    given: dict[str, Any] = {"explain": False, "fade": True, "n_rated": 40, "n_written": 12}
    return LlmChoices("tiny", cache, base_url=url, **(given | options))


def test_features_are_judged_at_once_and_the_model_runs_for_one(
    model: ReplacementModel,
    prompts: tuple[Prompt, ...],
    circuit: CircuitInterpretation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, run = threading.Lock(), model.host.run

    def guarded(*args: Any, **options: Any) -> Any:
        assert alone.acquire(blocking=False), "the model runs twice at a time"
        try:
            return run(*args, **options)
        finally:
            alone.release()

    monkeypatch.setattr(model.host, "run", guarded)
    found = []
    for concurrency in (1, 8):
        notes, cache = Notes(), tmp_path / str(concurrency)
        with serving(oracle(circuit, model, delay=0.02)) as server:
            asked = choices(cache, server.url, concurrency=concurrency)
            told, record = with_llm(model, circuit, prompts, asked, notes)
            n = len(server.requests)
            # every answer is in the cache; what is planned is still the most, and costs nothing
            before = model.spent
            again = choices(cache, server.url, dry_run=True)
            assert with_llm(model, circuit, prompts, again, Notes())[1]["dry_run"]
            assert model.spent == before and len(server.requests) == n
        assert server.most == 1 if concurrency == 1 else 2 <= server.most <= 8
        planned = re.search(r"tiny: at most (\d+) requests, about (\d+) tokens in", notes.told[0])
        assert planned is not None and record["failures"] == []
        assert n <= int(planned[1])
        del record["spent"], record["cost"]
        found.append((told.interpretations, record))
    assert found[0] == found[1]
    interpretations, record = found[0]
    # some pass the gate, so that what is steered was planned and is rated
    steered = [rated["steered"] for rated in record["fade"].values()]
    assert any(len(factors) == 7 for factors in steered)
    for one in interpretations:
        assert {*FADE, "detection_llm", "fuzzing_llm"} <= {*one.quality}
        assert one.quality["responsiveness_llm"].value == 1.0


def test_the_seed_decides_what_is_asked(
    model: ReplacementModel,
    prompts: tuple[Prompt, ...],
    circuit: CircuitInterpretation,
    tmp_path: Path,
) -> None:
    asked = {}
    for cache, seed in (("a", 0), ("b", 0), ("c", 1)):
        seeded = replace(circuit, choices=replace(circuit.choices, seed=seed))
        with serving(oracle(circuit, model, delay=0)) as server:
            with_llm(model, seeded, prompts, choices(tmp_path / cache, server.url), Notes())
        asked[cache] = {path.name for path in (tmp_path / cache).iterdir()}
    assert asked["a"] == asked["b"]
    assert asked["a"] != asked["c"]


def test_the_most_is_planned_without_the_model(
    model: ReplacementModel,
    prompts: tuple[Prompt, ...],
    circuit: CircuitInterpretation,
    tmp_path: Path,
) -> None:
    before, planned = model.spent, {}
    for n_steered in (0, 15, 16):
        asked = choices(tmp_path, "http://127.0.0.1:9", dry_run=True, n_steered=n_steered)
        same, planned[n_steered] = with_llm(model, circuit, prompts, asked, Notes())
        assert same is circuit
    assert model.spent == before and not list(tmp_path.iterdir())
    # 7 factors, a request for up to 15 prompts
    assert planned[15]["requests"] == planned[0]["requests"] + 7 * K
    assert planned[16]["requests"] == planned[0]["requests"] + 2 * 7 * K


def test_a_rule_is_judged_on_the_part_that_only_reports_and_by_its_words(
    model: ReplacementModel,
    prompts: tuple[Prompt, ...],
    circuit: CircuitInterpretation,
    tmp_path: Path,
) -> None:
    with serving(oracle(circuit, model, delay=0)) as server:
        with_llm(model, circuit, prompts, choices(tmp_path, server.url), Notes())
        bodies = [b for b in server.requests if '"layers"' not in b["messages"][0]["content"]]
    rules = [one.rule["text"] for one in circuit.interpretations if one.rule]
    assert {data_of(body)[0] for body in bodies} == {*rules}
    vocabulary, reporting = Vocabulary(model.host.tokenizer), {}
    for one, rule in zip(circuit.interpretations, rules, strict=True):
        sampled = circuit.collected.sampled(circuit.place_of(one.feature))
        some = sampled.sequences[parts_of_prompts(sampled.activity) == REPORTING]
        tokens = [circuit.collected.corpus.tokens_of(s).tolist() for s in some.tolist()]
        reporting[rule] = {"".join(map(vocabulary.text, t)) for t in tokens}
    detection = [b for b in bodies if "fires anywhere" in b["messages"][0]["content"]]
    assert len(detection) >= K
    for body in detection:
        rule, items = data_of(body)
        assert {*items.values()} <= reporting[rule]


@pytest.mark.parametrize("by_rules", [True, False])
def test_contexts_are_held_out_of_what_made_the_label(
    model: ReplacementModel, circuit: CircuitInterpretation, by_rules: bool
) -> None:
    vocabulary = Vocabulary(model.host.tokenizer)
    for k, one in enumerate(circuit.interpretations):
        contexts = held_out_contexts(
            circuit.collected, k, vocabulary, by_rules=by_rules, n_shown=2, n=6
        )
        kinds = [context.kind for context in contexts]
        assert "silent" in kinds and max(map(kinds.count, kinds)) <= 6
        assert all((c.kind == "silent") == (c.peak is None) for c in contexts)
        if not by_rules:
            shown = {context.tokens for context in one.contexts}
            assert not shown & {context.tokens for context in contexts}


def test_without_prompts_to_steer_there_is_no_faithfulness(
    model: ReplacementModel, circuit: CircuitInterpretation, tmp_path: Path
) -> None:
    with serving(oracle(circuit, model, delay=0)) as server:
        told, _ = with_llm(model, circuit, (), choices(tmp_path, server.url), Notes())
    whys = {one.quality["faithfulness_llm"].why for one in told.interpretations}
    assert "no continuation of the ablated feature was rated" in whys
