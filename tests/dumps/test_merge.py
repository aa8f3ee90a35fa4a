from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import MANIFEST, cut, edit_manifest, make_entries, make_prompts, small_dump, write_dump

from pie_fast import DumpError, DumpWriter, open_dump
from pie_fast.dump_merge import merge_dumps
from pie_fast.errors import OutputExistsError, PieFastError


def write_part(path: Path, columns: dict[str, Any], n: int, begin: int, end: int) -> Path:
    prompts = make_prompts(n).slice(begin, end)
    with DumpWriter(path, prompts=prompts, manifest=MANIFEST, activation_dtype="F16") as writer:
        writer.append(**cut(columns, begin, end))
    return path


def test_a_capture_shared_out_is_the_same_bytes(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(0), 900)
    whole = write_dump(tmp_path / "whole", columns, activation_dtype="F16")
    edges = [0, 100, 356, 356, 900]
    parts = [write_part(tmp_path / str(i), columns, 900, edges[i], edges[i + 1]) for i in range(4)]
    merge_dumps(parts, tmp_path / "merged")
    files = {f.name: f.read_bytes() for f in whole.iterdir()}
    assert {f.name: f.read_bytes() for f in (tmp_path / "merged").iterdir()} == files


def test_dumps_of_different_captures_are_not_merged(tmp_path: Path) -> None:
    one = small_dump(tmp_path / "one")
    other = small_dump(tmp_path / "other", manifest={"metric": "kl"})
    with pytest.raises(DumpError, match=r"manifest\.json: metric: is 'kl', .* has 'logit-diff'"):
        merge_dumps([one, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    edit_manifest(one, n_prompts_planned=30)
    with pytest.raises(DumpError, match="has 20 of 30 prompts: resume it"):
        merge_dumps([one], tmp_path / "merged")
    with pytest.raises(PieFastError, match="at least one dump"):
        merge_dumps([], tmp_path / "merged")


def test_what_is_there_is_replaced_by_force_only(tmp_path: Path) -> None:
    one = small_dump(tmp_path / "one")
    target = small_dump(tmp_path / "target", n=3)
    with pytest.raises(OutputExistsError):
        merge_dumps([one, one], target)
    assert open_dump(target).n_prompts == 3
    assert merge_dumps([one, one], target, force=True).n_prompts == 40


def test_a_merge_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = small_dump(tmp_path / "one")
    target = small_dump(tmp_path / "target", n=3)

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_dumps([one, one], tmp_path / "new", progress=stop)
    with pytest.raises(KeyboardInterrupt):
        merge_dumps([one, one], target, force=True, progress=stop)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one", "target"]
    assert open_dump(target).n_prompts == 3
