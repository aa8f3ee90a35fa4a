"""Rows of HuggingFace datasets, through the `datasets` library, never held all at once.

    hf:NAME[:CONFIG][@SPLIT]    of the hub, or a folder of data files, streamed
    FOLDER[@SPLIT]              as `save_to_disk` wrote it
    FILE.parquet, FILE.arrow    streamed

The split is `train` where none is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pie_fast.errors import CorpusError

#: what marks a dataset of the hub
HUB = "hf:"

#: file name ending -> the library's name of the format
FILES = {".parquet": "parquet", ".arrow": "arrow"}


def dataset_rows(name: str, split: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a dataset, in its order.

    Args:
        name: See the module, without the split.
        split: One of its splits; `train` when None.

    Yields:
        Where it stands (rows are counted from 0), and the row: column -> value.

    Raises:
        CorpusError: The library is not installed, or there is no such dataset, configuration or
            split, or it cannot be read.
    """
    library = _library(name)
    try:
        for number, row in enumerate(_opened(library, name, split or "train").with_format(None)):
            yield f"{name}, row {number}", dict(row)
    # The library lets through what its readers, pyarrow and the network raise.
    except (OSError, ValueError, KeyError, RuntimeError, library.exceptions.DatasetsError) as error:
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(f"cannot read dataset {name}: {_first_line(error)}") from error


def _opened(library: ModuleType, name: str, split: str) -> Any:
    if name.startswith(HUB):
        repository, _, config = name.removeprefix(HUB).partition(":")
        return library.load_dataset(repository, config or None, split=split, streaming=True)
    path = Path(name)
    if path.is_dir():
        found = library.load_from_disk(str(path))
        if not isinstance(found, library.DatasetDict):
            return found
        if split not in found:
            raise CorpusError(f"{name} has no split {split!r}; known: {', '.join(found)}")
        return found[split]
    if not path.is_file():
        raise CorpusError(f"cannot read {name}: no such file")
    return library.load_dataset(
        FILES[path.suffix], data_files=str(path), split="train", streaming=True
    )


def _library(name: str) -> ModuleType:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise CorpusError(
            f"{name} needs the datasets library: pip install 'pie-fast[datasets]'"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
