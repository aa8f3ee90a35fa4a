"""Corpora: every source gives sequences that begin as prompts do; every error names its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pie_fast.behaviors import TASKS, load_behavior
from pie_fast.corpora.sources import open_corpus
from pie_fast.corpora.windows import Windows
from pie_fast.data import demo_model_path
from pie_fast.errors import BehaviorError, CorpusError
from pie_fast.interpret import Corpus
from pie_fast.interpret.passes.corpus_hash import corpus_hash

BOS = 0
TEXT = "Alice and Bob went to the store.\nBob gave a book to Alice.\n"


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo_model_path())


def texts(corpus: Corpus, tokenizer: Any) -> list[str]:
    """Each sequence without its BOS, which must be there."""
    found = []
    for i in range(corpus.n_prompts):
        first, *rest = corpus.tokens_of(i).tolist()
        assert first == BOS
        found.append(tokenizer.decode(rest))
    return found


def write(path: Path, *lines: Any) -> str:
    path.write_text("".join(x if isinstance(x, str) else json.dumps(x) + "\n" for x in lines))
    return str(path)


def test_prompts_of_a_behavior_keep_tokens_roles_and_name(tokenizer: Any) -> None:
    behavior = load_behavior("ioi", tokenizer=tokenizer, n_prompts=10)
    corpus = open_corpus(["greater-than"], tokenizer, behavior=behavior)
    prompts = behavior.selection + behavior.held_out
    for i, prompt in enumerate(prompts):
        assert tuple(corpus.tokens_of(i).tolist()) == prompt.tokens
    assert corpus.roles is not None and corpus.sources is not None
    assert corpus.roles[: len(prompts[0])] == prompts[0].roles
    assert corpus.sources[:11] == ("ioi",) * 10 + ("greater-than",)


def test_without_a_name_a_behavior_stands_alone(tokenizer: Any) -> None:
    behavior = load_behavior("ioi", tokenizer=tokenizer, n_prompts=10)
    alone = open_corpus([], tokenizer, behavior=behavior)
    assert alone.sources == ("ioi",) * 10
    assert set(open_corpus([], tokenizer).sources or ()) == set(TASKS)


def test_every_built_in_behavior_is_read_once(tokenizer: Any) -> None:
    behavior = load_behavior("ioi", tokenizer=tokenizer, n_prompts=10)
    notes: list[str] = []
    corpus = open_corpus(["builtin"], tokenizer, behavior=behavior, note=notes.append)
    assert corpus.sources is not None and set(corpus.sources) == set(TASKS)
    assert corpus.sources.count("ioi") == 10
    sequences = {tuple(corpus.tokens_of(i).tolist()) for i in range(corpus.n_prompts)}
    assert len(sequences) == corpus.n_prompts
    assert all("in the corpus already" in note for note in notes)


class Letters:
    """A tokenizer of letters, with some BOS in front: no task finds its single-token words."""

    is_fast = False

    def __init__(self, n_first: int = 0) -> None:
        self.first = [BOS] * n_first

    def __call__(
        self, text: str, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[int]]:
        letters = [ord(c) % 256 for c in text]
        return {"input_ids": self.first + letters if add_special_tokens else letters}

    def __len__(self) -> int:
        return 256


def test_behaviors_that_the_tokenizer_cannot_read_are_told_of(tmp_path: Path) -> None:
    notes: list[str] = []
    with pytest.raises(CorpusError, match="can read no built-in behaviour"):
        open_corpus([], Letters(), note=notes.append)
    assert len(notes) == len(TASKS) and all(n.startswith("behaviour '") for n in notes)
    with pytest.raises(BehaviorError):
        open_corpus(["ioi"], Letters())
    with pytest.raises(CorpusError, match="can read no built-in behaviour"):
        open_corpus(["builtin"], None)


def test_a_text_file_is_cut_at_blank_lines_and_into_windows(tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbf\r\n" + TEXT.replace("\n", "\r\n").encode() + b" \n\n  to it")
    corpus = open_corpus([str(file)], tokenizer)
    assert texts(corpus, tokenizer) == [TEXT.rstrip("\n"), "  to it"]
    assert corpus.sources == ("a.txt", "a.txt")
    small = open_corpus([str(file)], tokenizer, window=5)
    assert np.diff(small.ptr).max() == 5
    assert "".join(texts(small, tokenizer)) == TEXT.rstrip("\n") + "  to it"


@given(st.lists(st.integers(1, 255), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 2))
def test_windows_join_up_to_what_was_cut(ids: list[int], room: int, n_first: int) -> None:
    windows, first = Windows(Letters(n_first), n_first + room), (BOS,) * n_first
    found = list(windows.of_ids("here", ids))
    assert all(w[:n_first] == first and 0 < len(w) - n_first <= room for w in found)
    assert [t for w in found for t in w[n_first:]] == ids
    assert list(windows.of_ids("here", [*first, *ids])) == found
    assert list(windows.of_text("here", "".join(map(chr, ids)))) == found


def test_long_documents_and_lines_come_in_pieces(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pie_fast.corpora.documents._PIECE", 16)
    words = " ".join(f"naïve{i}" for i in range(40))
    file = write(tmp_path / "a.txt", words, "\n\nend")
    corpus = open_corpus([file], tokenizer)
    assert corpus.n_prompts > 10
    assert "".join(texts(corpus, tokenizer)) == words + "end"


@pytest.mark.parametrize(
    ("spec", "record"),
    [
        ("a.jsonl", {"text": TEXT, "tokens": [1]}),
        ("a.jsonl", {"prompt": TEXT, "answer": " it"}),
        ("a.jsonl#body", {"text": "no", "body": TEXT}),
        ("a.jsonl#body", {"body": "IDS"}),
        ("a.jsonl", {"tokens": "IDS"}),
        ("a.jsonl", {"tokens": "BOS"}),
    ],
)
def test_json_lines(tmp_path: Path, tokenizer: Any, spec: str, record: dict[str, Any]) -> None:
    ids = tokenizer(TEXT)["input_ids"]
    with_ids = {"IDS": ids[1:], "BOS": ids}
    one = {k: with_ids.get(v, v) if isinstance(v, str) else v for k, v in record.items()}
    write(tmp_path / "a.jsonl", one, "\n", one)
    notes: list[str] = []
    corpus = open_corpus([str(tmp_path / spec)], tokenizer, note=notes.append)
    assert corpus.tokens.tolist() == ids
    assert notes == ["1 sequences were in the corpus already and are left out"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("{", ["line 2", "not JSON", "column 2"]),
        ("[1]", ["line 2", "expected an object, found list"]),
        ("[" * 100_000, ["line 2", "not JSON"]),
        ('{"text": 1' + "0" * 5000 + "}", ["line 2", "not JSON"]),
        ('{"body": "a"}', ["line 2", "'text' or 'tokens' or 'prompt' is missing", "body"]),
        ('{"text": ""}', ["line 2: field 'text' has no tokens"]),
        ('{"text": null}', ["line 2: field 'text' is None", "text or a list of token ids"]),
        ('{"text": 7}', ["line 2: field 'text' is 7"]),
        ('{"text": "a\\ud800"}', ["line 2: field 'text'", "surrogate", "character 1"]),
        ('{"tokens": []}', ["line 2: field 'tokens' has no tokens"]),
        ('{"tokens": [3, 1448]}', ["line 2: field 'tokens' holds 1448 at 1", "0 to 1447"]),
        ('{"tokens": [-1]}', ["holds -1 at 0", "0 to 1447"]),
        ('{"tokens": [true]}', ["holds True at 0"]),
        ('{"tokens": [1.5]}', ["holds 1.5 at 0"]),
        (b'{"text": "\xff"}', ["line 2: byte 0xff is not UTF-8"]),
    ],
)
def test_bad_lines_are_named(
    tmp_path: Path, tokenizer: Any, line: str | bytes, parts: list[str]
) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "fine"}\n' + raw + b"\n")
    with pytest.raises(CorpusError) as error:
        open_corpus([str(file)], tokenizer)
    for part in [str(file), *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("spec", "content", "said"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b" \n\n\t\n", "a.txt is empty"),
        ("a.jsonl", b"\n", "a.jsonl is empty"),
        ("a.txt", b"fine\nca\xc3", "line 2: byte 0xc3 is not UTF-8"),
        ("a.txt", b"fine\n\nb\xe9d", "line 3: byte 0xe9 is not UTF-8"),
        ("gone.txt", None, "cannot read .*gone.txt: No such file"),
        ("gone.jsonl#text", None, "cannot read .*gone.jsonl: No such file"),
        ("gone", None, "unknown corpus .*; known: builtin, ioi, .*hf:NAME or a file"),
        ("a.jsonl#body", b'{"text": "a"}\n', "line 1: field 'body' is missing; found: text"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, tokenizer: Any, spec: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / spec.partition("#")[0]).write_bytes(content)
    with pytest.raises(CorpusError, match=said):
        open_corpus([str(tmp_path / spec)], tokenizer)


def test_text_needs_a_tokenizer_and_ids_do_not(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"tokens": [5, 6, 7]})
    assert open_corpus([file], None, window=2).tokens.tolist() == [5, 6, 7]
    with pytest.raises(
        CorpusError, match=r"a\.txt, line 1 is text and needs the model's tokenizer"
    ):
        open_corpus([write(tmp_path / "a.txt", TEXT)], None)
    with pytest.raises(CorpusError, match=r"holds -5 at 0; token ids are integers >= 0"):
        open_corpus([write(tmp_path / "b.jsonl", {"tokens": [-5]})], None)


def test_limits(tmp_path: Path, tokenizer: Any) -> None:
    file = write(tmp_path / "a.jsonl", *({"tokens": [BOS, i, i + 1]} for i in range(1, 10)))
    notes: list[str] = []
    corpus = open_corpus([file], tokenizer, max_tokens=11, note=notes.append)
    assert corpus.n_prompts == 3
    assert notes == ["corpus cut in a.jsonl: the next sequence would exceed 11 tokens"]
    assert open_corpus([file], tokenizer, max_tokens=27, note=notes.append).n_prompts == 9
    assert len(notes) == 1
    with pytest.raises(CorpusError, match="the corpus is empty within max_tokens 2"):
        open_corpus([file], tokenizer, max_tokens=2)
    with pytest.raises(CorpusError, match="window is 1 tokens, must be at least 2"):
        open_corpus([file], tokenizer, window=1)


def test_reading_ends_where_the_corpus_is_full(tmp_path: Path, tokenizer: Any) -> None:
    file = write(tmp_path / "a.jsonl", {"text": "a b"}, {"text": "c d"}, "not read")
    assert open_corpus([file], tokenizer, max_tokens=5).n_prompts == 1


def test_the_hash_is_of_tokens_borders_and_counted() -> None:
    tokens, ptr = np.array([0, 1, 2]), np.array([0, 1, 3])
    one = Corpus(tokens, ptr)
    others = [
        Corpus(np.array([0, 1, 3]), ptr),
        Corpus(tokens, np.array([0, 2, 3])),
        Corpus(tokens, ptr, counted=np.array([True, True, False])),
    ]
    assert len({corpus_hash(c) for c in [one, *others]}) == 4
    same = Corpus(tokens.astype(np.int32), ptr, (None, "a", None), ("a", "b"), tokens >= 0)
    assert corpus_hash(same) == corpus_hash(one)


def test_sources_import_no_torch() -> None:
    code = "import sys, pie_fast.corpora.sources; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
