"""Mapped shards: the file's own bytes, and what is refused before anything is mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import recut, small_dump

from pie_fast import DumpError, PieFastError, _native, open_dump, top_k


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_views_are_what_reading_gives(tmp_path: Path, dtype: Any) -> None:
    path = small_dump(tmp_path / "one", activation_dtype=dtype)
    if dtype == "F32":
        path = recut(path, tmp_path / "cut", [7])
    dump = open_dump(path)
    seen = 0
    for i, shard in enumerate(dump.manifest["shards"]):
        mapped = dump.mapped(i)
        want = dump.entries(shard["first_prompt"], shard["n_prompts"])
        assert mapped.first_prompt == shard["first_prompt"]
        activation = mapped.activation
        if dtype == "BF16":
            activation = (activation.astype(np.uint32) << 16).view(np.float32)
        assert np.array_equal(activation.astype(np.float32), want.activation)
        for name in ("prompt_ptr", "feature", "position", "attribution"):
            view = getattr(mapped, name)
            assert np.array_equal(view, getattr(want, name))
            assert not view.flags.writeable and not view.flags.owndata
        seen += len(mapped.feature)
    assert seen == dump.n_active > 0


def test_views_lie_in_the_mapping_and_are_read_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = open_dump(small_dump(tmp_path / "d"))
    data = (dump.path / dump.manifest["shards"][0]["file"]).read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    mapped = dump.mapped(0)
    for name in ("prompt_ptr", "feature", "position", "activation", "attribution"):
        view = getattr(mapped, name)
        mapping = np.frombuffer(view.base, np.uint8)
        assert len(mapping) == len(data)
        start = mapping.ctypes.data + begin + header[name]["data_offsets"][0]
        assert view.ctypes.data == start
    seen = []
    real = _native.top_k
    monkeypatch.setattr(
        _native,
        "top_k",
        lambda scores, *rest: seen.append(scores.ctypes.data) or real(scores, *rest),
    )
    assert len(top_k(mapped.activation, 3)) == 3
    assert seen == [mapped.activation.ctypes.data]


def test_a_file_of_another_size_is_not_mapped(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "d")
    dump = open_dump(path)
    for shard in (-1, 1):
        with pytest.raises(PieFastError, match=rf"shard {shard} is outside \[0, 1\)"):
            dump.mapped(shard)
    file = path / dump.manifest["shards"][0]["file"]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DumpError, match="bytes, the manifest says"):
        dump.mapped(0)
