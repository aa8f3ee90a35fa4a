"""Hostile text: deep, enormous, not finite, not UTF-8. Every reader names the file and goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from pie_fast.behaviors import read_jsonl
from pie_fast.cli import app
from pie_fast.cli.config import read_config
from pie_fast.corpora.documents import records
from pie_fast.discovered_run import DiscoveredRun
from pie_fast.errors import PieFastError
from pie_fast.exchange.explanations import read_explanations
from pie_fast.exchange.graph_import import read_graph
from pie_fast.exchange.neuronpedia import read_neuronpedia
from pie_fast.report.run import read_run
from pie_fast.selectors import read_circuit
from pie_fast.untrusted import load_json, shown

DEEP, LONG = "[" * 5000, "1" * 5000
TEXTS = {
    "deep": b'{"features": ' + DEEP.encode(),
    "deep object": b'{"features":' * 5000,
    "digits": b'{"features": [' + LONG.encode() + b"]}",
    "not utf-8": b'{"features": "\xff\xfe"}',
    "empty": b"",
}

#: name of the file -> what reads its folder
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "result": ("result.json", lambda folder: DiscoveredRun(folder).result),
    "report": ("result.json", read_run),
    "circuit": ("result.json", lambda folder: read_circuit(folder / "result.json")),
    "behavior": ("b.jsonl", lambda folder: read_jsonl(folder / "b.jsonl")),
    "corpus": ("c.jsonl", lambda folder: list(records(folder / "c.jsonl"))),
    "graph": ("g.json", lambda folder: read_graph(folder / "g.json")),
    "labels": ("e.jsonl", lambda folder: read_explanations(folder / "e.jsonl")),
    "neuronpedia": ("n.jsonl", lambda folder: read_neuronpedia(folder / "n.jsonl")),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_json_refuses_it(reader: str, text: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_bytes(TEXTS[text])
    if reader in ("corpus", "labels", "neuronpedia") and text == "empty":
        assert read(tmp_path) == []
        return
    with pytest.raises(PieFastError, match=name) as caught:
        read(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("reader", ["result", "report", "circuit", "behavior", "graph", "labels"])
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite(reader: str, number: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_text(f'{{"features": [{number}], "tokens": [{number}]}}')
    with pytest.raises(PieFastError, match="must be finite"):
        read(tmp_path)


def test_json_of_others() -> None:
    assert load_json('{"a": [1, -2.5e3, true, "\\ud800"]}')["a"][:3] == [1, -2500.0, True]
    assert load_json(b"[1e999, NaN]", finite=False)[0] == float("inf")
    with pytest.raises(json.JSONDecodeError, match="column 2"):
        load_json("{a")
    for finite in (True, False):
        for text in TEXTS.values():
            with pytest.raises(ValueError):
                load_json(text, finite=finite)


def test_values_are_shown_short() -> None:
    deep: Any = []
    for _ in range(20_000):
        deep = [deep]
    wide = ["x" * 1000] * 1000
    bomb: Any = ["x"]
    for _ in range(12):
        bomb = [bomb] * 9
    for value in (deep, wide, bomb, 1 << 100_000, [1 << 100_000], {"a": wide}):
        assert len(shown(value)) < 300
    assert shown(7) == "7" and shown("a") == "'a'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"seed = {DEEP}", "not valid TOML"),
        (f"seed = {LONG}", "not valid TOML"),
        (f"seed = 0x{'f' * 9000}", "seed = a number of thousands of digits"),
        (f"budget = 0x{'f' * 9000}", "budget = a number of thousands of digits"),
        (f"pool-factor = {'9' * 400}", "pool-factor = 9999.*: must be an integer of 64 bits"),
        (f"model = {'[' * 60}{']' * 60}", "model = .* must be a string"),
        (f"{'a.' * 500}b = 1", "unknown key 'a'"),
    ],
)
def test_hostile_options(text: str, message: str, tmp_path: Path) -> None:
    command = typer.main.get_command(app).commands["discover"]  # type: ignore[attr-defined]
    context = command.make_context("discover", [], resilient_parsing=True)
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(PieFastError, match=message) as caught:
        read_config(context, file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"interpretations": [{"label": "x"}]}, r"interpretations\[0\]: no field 'feature'"),
        ({"interpretations": {"a": 1}}, "interpretations is {'a': 1}, must be a list"),
        ({"interpretations": [[]]}, r"interpretations\[0\]: no field 'feature'"),
        (
            {"interpretations": [], "edges": {"features": 3}},
            "edges: not as `interpret` writes them",
        ),
        ({"interpretations": [], "edges": [1]}, "edges: not as `interpret` writes them"),
        (
            {"interpretations": [], "edges": {"features": [], "effects": [[[]], 1]}},
            "edges: not as",
        ),
    ],
)
def test_damaged_interpretations(content: Any, message: str, tmp_path: Path) -> None:
    result = {"features": [], "settings": {}, "evaluation": {}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "interpretation.json").write_text(json.dumps(content))
    with pytest.raises(PieFastError, match=f"interpretation.json: {message}"):
        read_run(tmp_path)


def test_scores_beyond_a_float(tmp_path: Path) -> None:
    row = {"layer": 0, "index": 1, "fap_score": 10**400}
    (tmp_path / "result.json").write_text(json.dumps({"interpretations": [row]}))
    with pytest.raises(PieFastError, match=r"result.json: interpretations\[0\] needs layer"):
        _ = DiscoveredRun(tmp_path).features
