"""A file that cannot be written is named, and nothing else is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_fast.storage import replacing, write_json


def test_errors_name_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, kind in (
        (tmp_path / "none" / "a.json", FileNotFoundError),
        (tmp_path / "folder", IsADirectoryError),
    ):
        with pytest.raises(kind) as raised:
            write_json(path, {})
        assert raised.value.filename == str(path) and raised.value.filename2 is None
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_error_inside_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError) as raised, replacing(path) as file:
        file.write(b"new")
        (tmp_path / "other").open()
    assert raised.value.filename == str(tmp_path / "other")
    assert [one.name for one in tmp_path.iterdir()] == ["a"] and path.read_bytes() == b"old"
