"""Corpora from HuggingFace datasets: saved folders, files, and the hub's code on a local folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoTokenizer

from hub_server import serving
from pie_fast.corpora.sources import open_corpus
from pie_fast.data import demo_model_path
from pie_fast.errors import CorpusError

TEXTS = ["Alice went to the store.", "", "Bob went home."]
IDS = [[0, 5, 6], [], [7]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo_model_path())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in every form, and a folder as a repository of the hub is."""
    root = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"text": TEXTS, "ids": IDS, "label": [0, 1, 0]})
    rows.with_format("numpy").save_to_disk(root / "one")
    datasets.DatasetDict({"train": rows.select([0]), "test": rows}).save_to_disk(root / "two")
    rows.to_parquet(root / "rows.parquet")
    shutil.copy(next((root / "one").glob("*.arrow")), root / "rows.arrow")
    (root / "hub").mkdir()
    for split in ("train", "test"):
        shutil.copy(root / "rows.parquet", root / "hub" / f"{split}.parquet")
    return root


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        ("{}/one", "one"),
        ("{}/two@test", "two"),
        ("{}/rows.parquet", "rows.parquet"),
        ("{}/rows.arrow", "rows.arrow"),
        ("hf:{}/hub", "hf:{}/hub"),
        ("hf:{}/hub:default@test", "hf:{}/hub:default"),
    ],
)
def test_every_form_gives_the_same_sequences(
    folder: Path, tokenizer: Any, spec: str, source: str
) -> None:
    notes: list[str] = []
    named = spec.format(folder)
    corpus = open_corpus([named], tokenizer, note=notes.append)
    wanted = [tokenizer(text)["input_ids"] for text in TEXTS if text]
    assert [corpus.tokens_of(i).tolist() for i in range(corpus.n_prompts)] == wanted
    assert corpus.sources == (source.format(folder),) * 2
    assert notes == ["1 rows have nothing in their field and are left out"]
    ids = open_corpus([f"{named}#ids"], tokenizer)
    assert ids.tokens.tolist() == [0, 5, 6, 0, 7] and ids.ptr.tolist() == [0, 3, 5]


def test_the_split_is_train_where_none_is_named(folder: Path, tokenizer: Any) -> None:
    assert open_corpus([f"{folder}/two"], tokenizer).n_prompts == 1


OPEN = """
import sys
from transformers import AutoTokenizer
from pie_fast.errors import CorpusError
from pie_fast.corpora.sources import open_corpus
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for spec in sys.argv[2:]:
    try:
        print(open_corpus([spec], tokenizer).tokens.tolist())
    except CorpusError as error:
        print("refused:", error)
"""


def test_a_dataset_is_streamed_from_a_hub(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    shutil.copy(folder / "rows.parquet", repo / "test.parquet")
    with serving(repo, "someone/texts", kind="datasets") as address:
        settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
        specs = ["hf:someone/texts@test", "hf:someone/texts@test#ids", "hf:someone/other"]
        done = subprocess.run(
            [sys.executable, "-c", OPEN, demo_model_path(), *specs],
            capture_output=True,
            text=True,
            env=os.environ | settings,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    words, ids, refused = done.stdout.splitlines()
    assert words == str([i for text in TEXTS if text for i in tokenizer(text)["input_ids"]])
    assert ids == "[0, 5, 6, 0, 7]"
    assert refused.startswith("refused: cannot read dataset hf:someone/other: ")
    assert not list((tmp_path / "cache").rglob("*.parquet"))  # streamed, not downloaded


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{}/two@dev", "two has no split 'dev'; known: train, test"),
        ("hf:{}/hub@dev", "cannot read dataset hf:.*hub: .*dev.*train"),
        ("hf:{}/hub:other", "cannot read dataset hf:.*hub:other: .*other"),
        ("hf:a name", "cannot read dataset hf:a name: "),
        ("hf:{}/gone", "cannot read dataset hf:.*gone: "),
        ("{}/gone.parquet", "gone.parquet: no such file"),
        ("{}/hub", "cannot read dataset .*hub: "),
        ("{}/broken.parquet", "cannot read dataset .*broken.parquet: "),
        ("{}/broken.arrow", "cannot read dataset .*broken.arrow: "),
        ("{}/one#title", "one, row 0: field 'title' is missing; found: text, ids, label"),
        ("{}/one#label", "one, row 0: field 'label' is 0; must be text or a list"),
    ],
)
def test_errors_name_dataset_row_and_field(
    folder: Path, tokenizer: Any, spec: str, said: str
) -> None:
    for ending in ("parquet", "arrow"):
        (folder / f"broken.{ending}").write_bytes(b"not a table of anything")
    with pytest.raises(CorpusError, match=said):
        open_corpus([spec.format(folder)], tokenizer)


def test_without_the_library_it_is_named(
    folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        CorpusError, match=r"the datasets library: pip install 'pie-fast\[datasets\]'"
    ):
        open_corpus([f"{folder}/one"], tokenizer)
