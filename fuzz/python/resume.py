"""A capture that goes on with a folder it finds: a `PieFastError`, or a good dump in the end."""

from __future__ import annotations

import shutil

import numpy as np
from _fuzzing import BETWEEN, folder, fuzz, instrumented

with instrumented():
    from pie_fast.dump import DumpWriter, PromptTable, open_dump
    from pie_fast.errors import PieFastError

FOLDER = folder()
N = 3
NAMES = ("manifest.json", "prompts.safetensors", "shard-00000.safetensors")
MANIFEST = {
    "n_layers": 2,
    "n_features": 5,
    "model": {"name": "m"},
    "clt": {"name": "c"},
    "behavior": {"name": "b"},
    "metric": "logit-diff",
    "baseline": "zero",
}


def table() -> PromptTable:
    return PromptTable(
        tokens=np.arange(2 * N, dtype=np.int32),
        prompt_ptr=np.arange(N + 1, dtype=np.int64) * 2,
        answer=np.zeros(N, np.int32),
        foil=np.full(N, -1, np.int32),
        answer_position=np.ones(N, np.int32),
        metric_clean=np.zeros(N),
        metric_baseline=np.zeros(N),
    )


def write(path, **options: bool) -> None:
    with DumpWriter(path, prompts=table(), manifest=MANIFEST, shard_bytes=1, **options) as writer:
        for _ in range(writer.next_prompt, N):
            writer.append([0, 1], np.uint32([3]), np.uint16([1]), np.float32([2]), np.float32([1]))


write(FOLDER / "good")
GOOD = {name: (FOLDER / "good" / name).read_bytes() for name in NAMES}


def one(data: bytes) -> None:
    """A file's number, then the file; the others are good ones."""
    path = FOLDER / "resumed"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, content in GOOD.items():
        (path / name).write_bytes(content)
    for part in data.split(BETWEEN)[:3]:
        if part[:1] == b"-":
            (path / NAMES[part[-1] % 3]).unlink(missing_ok=True)
        elif part:
            (path / NAMES[part[0] % 3]).write_bytes(part[1:])
    try:
        write(path, resume=True)
    except (PieFastError, FileNotFoundError) as error:
        assert path.name in str(error), error
        return
    dump = open_dump(path)
    assert dump.n_prompts == N, dump.manifest
    dump.verify(deep=False)


fuzz(one)
