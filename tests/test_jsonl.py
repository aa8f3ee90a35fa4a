"""Behaviours in JSON Lines: what is written is read, and every error names file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pie_fast.behaviors import Behavior, Prompt, load_behavior, read_jsonl, write_jsonl
from pie_fast.data import demo_model_path
from pie_fast.errors import BehaviorError

IDS = {"tokens": [0, 1, 2], "answer_id": 5, "foil_id": 6}
TEXT = {"prompt": "Then, Alice and Adam went", "answer": " to", "foil": " Alice"}


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo_model_path())


def write(path: Path, *records: Any) -> Path:
    file = path / "b.jsonl"
    file.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records))
    return file


def without(record: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in names} | changes


ids = st.integers(0, 2**31 - 1)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    tokens = draw(st.lists(ids, min_size=1, max_size=6))
    size = {"min_size": len(tokens), "max_size": len(tokens)}
    answer = draw(ids)
    return Prompt(
        tokens=tuple(tokens),
        answer=answer,
        foil=draw(st.none() | ids.filter(lambda i: i != answer)),
        counterfactual=draw(st.none() | st.lists(ids, **size).map(tuple)),
        answer_position=draw(st.integers(0, len(tokens) - 1)),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(prompts(), min_size=1, max_size=4), st.lists(prompts(), max_size=3))
def test_ids_come_back(tmp_path: Path, selection: list[Prompt], held_out: list[Prompt]) -> None:
    b = Behavior("b.jsonl", tuple(selection), tuple(held_out), "logprob")
    file = tmp_path / "b.jsonl"
    write_jsonl(file, b)
    again = read_jsonl(file, metric="logprob")
    assert again == b and again.hash == b.hash
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("text", [False, True])
def test_generated_behavior_comes_back(tmp_path: Path, tokenizer: Any, text: bool) -> None:
    b = load_behavior("docstring", tokenizer=tokenizer, n_prompts=12)
    write_jsonl(tmp_path / "d.jsonl", b, text=text, tokenizer=tokenizer)
    again = load_behavior(tmp_path / "d.jsonl", tokenizer=tokenizer)
    for old, new in zip(b.selection + b.held_out, again.selection + again.held_out, strict=True):
        assert (old.tokens, old.answer, old.foil) == (new.tokens, new.answer, new.foil)
        assert (old.counterfactual, old.answer_position) == (
            new.counterfactual,
            new.answer_position,
        )
    assert again.metric == "logit-diff"


def test_text_is_tokenised_with_special_tokens_first(tmp_path: Path, tokenizer: Any) -> None:
    file = write(tmp_path, TEXT | {"counterfactual": "Then, Clara and Adam went"}, "\n", TEXT)
    b = read_jsonl(file, tokenizer=tokenizer)
    (prompt,) = (p for p in b.selection + b.held_out if p.counterfactual is not None)
    assert list(prompt.tokens) == tokenizer(TEXT["prompt"])["input_ids"]
    assert prompt.tokens[0] == tokenizer.bos_token_id
    assert tokenizer.decode([prompt.answer]) == " to"
    assert prompt.text == TEXT["prompt"]


def test_split_is_seeded_and_halved(tmp_path: Path) -> None:
    file = write(tmp_path, *(IDS | {"tokens": [i]} for i in range(9)))
    b = read_jsonl(file, seed=1)
    assert (len(b.selection), len(b.held_out)) == (5, 4)
    assert {p.tokens for p in b.selection + b.held_out} == {(i,) for i in range(9)}
    assert b == read_jsonl(file, seed=1)
    assert b.selection != read_jsonl(file, seed=3).selection


def test_split_named_in_the_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        IDS | {"split": "held_out"},
        IDS | {"split": "selection", "tokens": [4]},
        IDS | {"split": "selection", "tokens": [3]},
    )
    b = read_jsonl(file)
    assert [p.tokens for p in b.selection] == [(4,), (3,)]
    assert [p.tokens for p in b.held_out] == [(0, 1, 2)]
    assert len(load_behavior(file, n_selection=1).selection) == 1
    assert len(load_behavior(file, n_prompts=2, n_held_out=1).selection) == 1
    with pytest.raises(BehaviorError, match=r"cannot take 3 selection prompts of 'b\.jsonl'"):
        load_behavior(file, n_selection=3)


def test_metric_follows_the_foils(tmp_path: Path) -> None:
    assert read_jsonl(write(tmp_path, IDS)).metric == "logit-diff"
    assert read_jsonl(write(tmp_path, IDS, without(IDS, "foil_id"))).metric == "logprob"
    assert read_jsonl(write(tmp_path, IDS), metric="kl").metric == "kl"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{oops\n", "not JSON: Expecting property name .* at column 2"),
        ([1], "expected an object, found list"),
        (IDS | {"anser": 1}, "unknown field 'anser'; known: prompt, tokens, answer"),
        (IDS | {"prompt": "a"}, "both 'prompt' and 'tokens' are given; keep one"),
        (IDS | {"answer": "a"}, "both 'answer' and 'answer_id' are given"),
        (without(IDS, "tokens"), "field 'prompt' or 'tokens' is missing"),
        (without(IDS, "answer_id"), "field 'answer' or 'answer_id' is missing"),
        (IDS | {"tokens": 3}, "field 'tokens' is 3, not a list of token ids"),
        (IDS | {"tokens": []}, "tokens is empty"),
        (IDS | {"tokens": [1, -2]}, "field 'tokens' holds -2; token ids are integers >= 0"),
        (IDS | {"tokens": [1, 2.5]}, "field 'tokens' holds 2.5; token ids are integers"),
        (IDS | {"answer_id": True}, "field 'answer_id' holds True; token ids are integers"),
        (IDS | {"foil_id": "x"}, "field 'foil_id' holds 'x'; token ids are integers"),
        (IDS | {"foil_id": 5}, "foil 5 is the answer itself"),
        (IDS | {"counterfactual_tokens": [1]}, "counterfactual has 1 tokens where the prompt has"),
        (IDS | {"answer_position": 3}, r"answer_position 3 is outside \[-3, 2\]"),
        (IDS | {"answer_position": "2"}, "field 'answer_position' is '2', not an integer"),
        (IDS | {"split": "train"}, "field 'split' is 'train'; valid: selection, held_out"),
        (IDS | {"split": "selection"}, "field 'split' is 'selection' here but not on other lines"),
        (TEXT | {"prompt": 4}, "field 'prompt' is 4, not text"),
        (TEXT | {"answer": " Alice Adam"}, "field 'answer' is ' Alice Adam', which is 2 tokens; "),
        (
            TEXT | {"answer": "Alice"},
            r"field 'answer' is 'Alice', which is \d tokens; it must be 1; "
            "' Alice' with a leading space is one token",
        ),
        (TEXT | {"foil": ""}, "field 'foil' is '', which is 0 tokens"),
        (
            TEXT | {"counterfactual": "Then, Alice and Adam went to"},
            "counterfactual has 8 tokens where the prompt has 7",
        ),
    ],
)
def test_bad_lines(tmp_path: Path, tokenizer: Any, record: Any, message: str) -> None:
    file = write(tmp_path, IDS, "\n", record)
    with pytest.raises(BehaviorError, match=rf"b\.jsonl, line 3: {message}"):
        read_jsonl(file, tokenizer=tokenizer)


def test_text_needs_a_tokenizer(tmp_path: Path) -> None:
    message = "line 1: field 'prompt' is text and needs the model's tokenizer"
    with pytest.raises(BehaviorError, match=message):
        load_behavior(write(tmp_path, TEXT))


def test_metric_that_needs_foils(tmp_path: Path) -> None:
    file = write(tmp_path, IDS, without(IDS, "foil_id"))
    message = "line 2: field 'foil' or 'foil_id' is missing; metric 'prob-diff' compares"
    with pytest.raises(BehaviorError, match=message):
        read_jsonl(file, metric="prob-diff")
    with pytest.raises(BehaviorError, match="unknown metric 'x'; known: logit-diff"):
        read_jsonl(file, metric="x")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(BehaviorError, match=r"cannot read behavior file .*gone\.jsonl: No such fi"):
        load_behavior(str(tmp_path / "gone.jsonl"))
    with pytest.raises(BehaviorError, match=r"b\.jsonl is empty; it needs at least one line"):
        read_jsonl(write(tmp_path, "\n\n"))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BehaviorError, match=r"bytes\.jsonl is not UTF-8 text: byte 0 is invalid"):
        read_jsonl(tmp_path / "bytes.jsonl")
    with pytest.raises(BehaviorError, match=r"'abc' cannot be chosen for .*a file brings its own"):
        load_behavior(write(tmp_path, IDS), counterfactual="abc")


def test_writing_text_needs_text(tmp_path: Path, tokenizer: Any) -> None:
    b = Behavior("b", (Prompt((0, 1), 2, 3),))
    with pytest.raises(BehaviorError, match="as text needs the tokenizer"):
        write_jsonl(tmp_path / "b.jsonl", b, text=True)
    with pytest.raises(BehaviorError, match="selection prompt 0 of 'b' carries no text"):
        write_jsonl(tmp_path / "b.jsonl", b, text=True, tokenizer=tokenizer)
    assert not list(tmp_path.iterdir())
