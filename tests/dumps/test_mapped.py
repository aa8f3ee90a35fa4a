"""Mapped shards: the file's own bytes, and what is refused before anything is mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import recut, small_dump

from pie_fast import DumpError, PieFastError, open_dump


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
