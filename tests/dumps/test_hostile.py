"""Broken and hostile files: an error that names the file, never a wrong answer or a signal."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import edit_manifest, make_entries, replace_shard, small_dump, write_dump

from pie_fast import DumpError, open_dump
from pie_fast.dump import FeatureDump
from pie_fast.errors import PieFastError
from pie_fast.storage import write_safetensors

SHARD = "shard-00000.safetensors"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return small_dump(tmp_path / "d", n=3)


def use(path: Path) -> FeatureDump:
    """Everything a reader does."""
    opened = open_dump(path)
    for rank_by in ("mean_abs", "magnitude"):
        opened.score(rank_by, threads=2)
    opened.entries(0, opened.n_prompts)
    opened.entries_of([1, 2])
    opened.summary()
    return opened


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def with_header(header: dict[str, Any] | str, data: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def columns_of(path: Path) -> dict[str, Any]:
    from pie_fast import twin_dump

    return twin_dump.read_tensors(path / SHARD)


def rewrite(path: Path, **changes: Any) -> None:
    """Change columns of the shard; the manifest agrees about everything but the content."""
    columns = {**columns_of(path), **changes}
    columns = {name: value for name, value in columns.items() if value is not None}
    write_safetensors(path / "new.safetensors", columns)
    replace_shard(path, (path / "new.safetensors").read_bytes())


def test_truncated_at_every_byte(dump: Path) -> None:
    data = (dump / SHARD).read_bytes()
    use(dump)
    for end in range(len(data)):
        (dump / SHARD).write_bytes(data[:end])
        with pytest.raises(DumpError, match=SHARD):
            open_dump(dump)
        # Nor when the manifest agrees with the truncated file.
        if end % 7 == 0 or end < 400:
            replace_shard(dump, data[:end])
            with pytest.raises(DumpError, match=SHARD):
                open_dump(dump)
            edit_manifest(dump, shards=[{**entry(dump), "bytes": len(data)}])


def entry(path: Path) -> dict[str, Any]:
    shard: dict[str, Any] = json.loads((path / "manifest.json").read_text())["shards"][0]
    return shard


def test_every_flipped_bit_is_found_by_a_deep_check(dump: Path) -> None:
    data = bytearray((dump / SHARD).read_bytes())
    open_dump(dump).verify()
    edit_manifest(dump, shards=[{k: v for k, v in entry(dump).items() if k != "crc32"}])
    found = 0
    for i in range(0, len(data), 3):
        bit = 1 << (i * 5 % 8)
        data[i] ^= bit
        (dump / SHARD).write_bytes(data)
        with pytest.raises(DumpError):
            open_dump(dump).verify()
        # Without hash and CRC-32: an error or an answer, but an answer of finite numbers.
        try:
            scores = use(dump).score()
        except PieFastError:
            found += 1
        else:
            assert np.isfinite(scores).all()
        data[i] ^= bit
    assert found > len(data) / 3 / 4


def test_a_flipped_manifest_is_an_error_or_the_same_dump(dump: Path) -> None:
    file = dump / "manifest.json"
    data = bytearray(file.read_bytes())
    scores = open_dump(dump).score().tobytes()
    errors = 0
    for i in range(len(data)):
        bit = 1 << (i * 3 % 7)
        data[i] ^= bit
        file.write_bytes(data)
        try:
            opened = open_dump(dump)
            assert opened.n_active > 0
            if opened.n_layers * opened.n_features == 120:
                assert opened.score().tobytes() == scores
        except (DumpError, FileNotFoundError):
            errors += 1
        data[i] ^= bit
    assert errors > len(data) / 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, 'format: is not "pie-fast-dump"'),
        ({"format": ...}, "format: is missing"),
        ({"version": 2}, "version: 2 is newer than 1, the newest that is read here"),
        ({"version": "1"}, 'version: "1" is not a whole number'),
        ({"n_layers": 0}, r"n_layers: 0 is not a whole number in \[1, 4294967296\]"),
        ({"n_features": 1 << 40}, "n_features: 1099511627776 is not a whole number in"),
        ({"n_prompts": 4}, "n_prompts: is 4, the shards have 3"),
        ({"n_prompts": -3}, "n_prompts: -3 is not a whole number"),
        ({"n_prompts": ...}, "n_prompts: is missing"),
        ({"shards": {}}, "shards: is not a list"),
        ({"shards": [1]}, r"shards\[0\]: is not an object"),
        ({"n_features": 2}, r"feature: \d+ at entry \d+ is outside \[0, 6\)"),
    ],
)
def test_lying_manifests(dump: Path, changes: dict[str, Any], message: str) -> None:
    edit_manifest(dump, **changes)
    with pytest.raises(DumpError, match=message):
        use(dump)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../other/" + SHARD}, "is not the name of a file in the dump"),
        ({"file": "/etc/passwd"}, "is not the name of a file in the dump"),
        ({"file": ".."}, "is not the name of a file in the dump"),
        ({"file": ""}, "is not the name of a file in the dump"),
        ({"n_active": 1}, r"has shape \[\d+\], the manifest says \[1\]"),
        ({"n_prompts": 2}, "n_prompts: is 3, the shards have 2"),
        ({"bytes": 10}, "file: has [0-9]+ bytes, the manifest says 10"),
        ({"first_prompt": 1}, "begins at prompt 1 where 0 is next: leaves a gap"),
        ({"hash": "abc"}, "is not 64 hexadecimal digits"),
        ({"n_active": 1 << 62}, "the manifest says"),
        ({"n_prompts": (1 << 63) - 1}, "n_prompts: is 3, the shards have"),
    ],
)
def test_lying_shard_entries(dump: Path, changes: dict[str, Any], message: str) -> None:
    edit_manifest(dump, shards=[{**entry(dump), **changes}])
    with pytest.raises(DumpError, match=message):
        use(dump)


def test_a_wrong_hash_is_found_by_a_deep_check_only(dump: Path) -> None:
    edit_manifest(dump, shards=[{**entry(dump), "hash": "0" * 64}])
    open_dump(dump).verify(deep=False)
    with pytest.raises(
        DumpError, match=f"{SHARD}: file: has sha256 [0-9a-f]+, the manifest says 00"
    ):
        open_dump(dump).verify()


def test_shards_missing_or_twice_or_overlapping(dump: Path) -> None:
    shard = entry(dump)
    edit_manifest(dump, shards=[shard, shard], n_prompts=6)
    with pytest.raises(
        DumpError, match=r"shards\[1\].file: shard-00000.safetensors is listed twice"
    ):
        open_dump(dump)
    shutil.copy(dump / SHARD, dump / "copy.safetensors")
    edit_manifest(dump, shards=[shard, {**shard, "file": "copy.safetensors", "first_prompt": 2}])
    with pytest.raises(DumpError, match="begins at prompt 2 where 3 is next: overlaps"):
        open_dump(dump)
    edit_manifest(dump, shards=[shard], n_prompts=3)
    (dump / SHARD).unlink()
    with pytest.raises(FileNotFoundError, match=SHARD):
        open_dump(dump)
    (dump / SHARD).mkdir()
    with pytest.raises(DumpError, match="is not a regular file"):
        open_dump(dump)


def test_a_fifo_is_not_waited_for(dump: Path) -> None:
    (dump / SHARD).unlink()
    os.mkfifo(dump / SHARD)
    with pytest.raises(DumpError, match="is not a regular file"):
        open_dump(dump)


def test_what_is_no_dump(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_dump(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DumpError, match="the folder is not a feature dump"):
        open_dump(tmp_path / "empty")
    for text in (b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 100_000):
        (tmp_path / "empty" / "manifest.json").write_bytes(text)
        with pytest.raises(DumpError, match=r"manifest\.json: file: is not a JSON object"):
            open_dump(tmp_path / "empty")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: h["feature"].update(data_offsets=[0, 8]), "feature: shape"),
        (lambda h: h["feature"].update(data_offsets=[8, 0]), r"\[8, 0\] are outside"),
        (lambda h: h["feature"].update(data_offsets=[0, 1 << 40]), "are outside"),
        (lambda h: h["feature"].update(data_offsets=[0]), "has no data_offsets"),
        (lambda h: h["activation"].update(data_offsets=h["feature"]["data_offsets"]), "overlaps"),
        (lambda h: h["feature"].update(dtype="F32"), "feature: has dtype F32, must be U32"),
        (lambda h: h["feature"].update(dtype="X9"), "feature: has dtype X9"),
        (lambda h: h["feature"].update(dtype=4), "feature: has no dtype"),
        (lambda h: h["feature"].update(shape=[1 << 62, 1 << 62]), "feature: shape"),
        (lambda h: h["feature"].update(shape=[-1]), "feature: has no shape"),
        (lambda h: h["feature"].update(shape=[1, *h["feature"]["shape"]]), "feature: has shape"),
        (lambda h: h.pop("feature"), "leaves a hole after|overlaps|accounts for"),
        (lambda h: h.update(feature=7), "feature: has no dtype"),
        (lambda h: h["position"].update(dtype="F16"), "position: has dtype F16, must be U16"),
        (lambda h: h["prompt_ptr"].update(dtype="F64"), "prompt_ptr: is F64 of shape"),
        (lambda h: h["attribution"].update(dtype="I32"), "attribution: has dtype I32"),
    ],
)
def test_lying_headers(dump: Path, edit: Any, message: str) -> None:
    header, data = header_of((dump / SHARD).read_bytes())
    edit(header)
    replace_shard(dump, with_header(header, data))
    with pytest.raises(DumpError, match=message):
        open_dump(dump)


def test_odd_headers(dump: Path) -> None:
    good = (dump / SHARD).read_bytes()
    header, data = header_of(good)
    text = json.dumps(header)
    cases = [
        ((1 << 63).to_bytes(8, "little") + good[8:], "header: length 9223372036854775808 exceeds"),
        ((200_000_000).to_bytes(8, "little") + good[8:], "header: length 200000000 exceeds"),
        (good + b"\0", "file: has [0-9]+ bytes, its header accounts for"),
        (with_header("[" * 50_000, data), "header: is not the JSON of a header"),
        (with_header("[]", data), "header: is not the JSON of a header"),
        (
            with_header(text[:-1] + ',"feature":' + json.dumps(header["feature"]) + "}", data),
            "feature is there twice",
        ),
        (b"", "header"),
        (b"\0" * 8, "header"),
        (with_header("{}", b""), "feature: is missing"),
    ]
    for content, message in cases:
        replace_shard(dump, content)
        with pytest.raises(DumpError, match=message):
            open_dump(dump)
    # Spaces, other tensors and metadata are fine.
    header["extra"] = {"dtype": "BOOL", "shape": [2], "data_offsets": [len(data), len(data) + 2]}
    header["__metadata__"] = {"by": "somebody"}
    replace_shard(dump, with_header(json.dumps(header, indent=4) + "  ", data + b"\1\0"))
    use(dump)


def test_lying_columns(dump: Path) -> None:
    columns = columns_of(dump)
    n = len(columns["feature"])
    assert n > 10

    def changed(name: str, i: int, value: float) -> dict[str, Any]:
        array = columns[name].copy()
        array[i] = value
        return {name: array}

    ptr = columns["prompt_ptr"]
    first = int(ptr[1])
    swapped = columns["feature"].copy()
    swapped[[0, first - 1]] = swapped[[first - 1, 0]]
    twice = {name: columns[name].copy() for name in ("feature", "position")}
    for array in twice.values():
        array[2] = array[1]
    cases: list[tuple[dict[str, Any], str]] = [
        (changed("prompt_ptr", 0, 1), "prompt_ptr: runs from 1 to"),
        (changed("prompt_ptr", -1, n - 1), f"runs from 0 to {n - 1}, must be 0 to {n}"),
        (changed("prompt_ptr", -1, -1), "runs from 0 to -1"),
        (changed("prompt_ptr", 1, n + 5), f"prompt_ptr: falls from {n + 5} to"),
        (changed("prompt_ptr", 1, -7), "prompt_ptr: falls from -7 to"),
        ({"prompt_ptr": ptr[:-1]}, r"must be I64 of shape \[4\]"),
        (changed("feature", n - 1, 120), rf"feature: 120 at entry {n - 1} is outside \[0, 120\)"),
        ({"feature": swapped}, "it is out of order"),
        (twice, "it is there twice"),
        (changed("activation", 3, np.nan), "activation: NaN at entry 3 is not finite"),
        (changed("activation", 3, -np.inf), "activation: -inf at entry 3 is not finite"),
        (changed("attribution", 4, np.inf), "attribution: inf at entry 4 is not finite"),
        ({"position": None}, "position: is missing; the file has"),
        ({"activation": columns["activation"][1:]}, "activation: has shape"),
    ]
    for changes, message in cases:
        rewrite(dump, **changes)
        with pytest.raises(DumpError, match=f"{SHARD}: .*{message}|{message}"):
            use(dump)
        rewrite(dump, **{name: columns[name] for name in columns})
    use(dump)


def test_positions_beyond_their_prompt(dump: Path) -> None:
    columns = columns_of(dump)
    position = columns["position"].copy()
    position[int(columns["prompt_ptr"][1]) - 1] = 9
    rewrite(dump, position=position)
    use(dump)
    with pytest.raises(DumpError, match="position: 9 in prompt 0, which has 9 tokens"):
        open_dump(dump).verify()


def test_attributions_in_some_shards_only(tmp_path: Path) -> None:
    columns = make_entries(np.random.default_rng(0), 300)
    path = write_dump(tmp_path / "d", columns, shard_bytes=1)
    rewrite(path, attribution=None)
    with pytest.raises(DumpError, match="attribution: this shard has it, those before have not"):
        open_dump(path)


def test_files_that_change_while_open(dump: Path) -> None:
    opened = open_dump(dump)
    data = (dump / SHARD).read_bytes()
    os.truncate(dump / SHARD, len(data) // 2)
    for read in (opened.score, opened.summary, lambda: opened.entries(0, 3), opened.verify):
        with pytest.raises(DumpError, match="the manifest says"):
            read()
    (dump / SHARD).write_bytes(data + b"more")
    with pytest.raises(DumpError, match="the manifest says"):
        opened.score()
    (dump / SHARD).unlink()
    with pytest.raises(FileNotFoundError):
        opened.score()
    (dump / SHARD).write_bytes(data)
    opened.score()


def test_a_file_that_shrinks_and_grows_during_scans(tmp_path: Path) -> None:
    """A mapped reader would die of SIGBUS here; ours answers, or raises DumpError."""
    columns = make_entries(np.random.default_rng(0), 200, density=0.5)
    path = write_dump(tmp_path / "d", columns)
    shard = path / SHARD
    data = shard.read_bytes()
    opened = open_dump(path)
    good = opened.score().tobytes()
    stop = threading.Event()

    def shake() -> None:
        while not stop.is_set():
            os.truncate(shard, len(data) // 3)
            shard.write_bytes(data)

    thread = threading.Thread(target=shake)
    thread.start()
    errors = answers = 0
    try:
        for _ in range(300):
            try:
                assert opened.score(threads=2).tobytes() == good
                answers += 1
            except DumpError:
                errors += 1
    finally:
        stop.set()
        thread.join()
    assert errors > 0
    assert opened.score().tobytes() == good


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header"),
        (b"\xff" * 40, "header"),
        (None, "tokens"),
    ],
)
def test_broken_prompts(dump: Path, content: bytes | None, message: str) -> None:
    file = dump / "prompts.safetensors"
    if content is None:
        write_safetensors(file, {"prompt_ptr": np.zeros(4, np.int64)})
    else:
        file.write_bytes(content)
    with pytest.raises(DumpError, match=rf"prompts\.safetensors: {message}"):
        _ = open_dump(dump).prompts
    with pytest.raises(DumpError, match=r"prompts\.safetensors"):
        open_dump(dump).verify(deep=False)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        open_dump(dump).verify(deep=False)


def test_prompts_of_another_dump(dump: Path, tmp_path: Path) -> None:
    other = small_dump(tmp_path / "other", n=5)
    shutil.copy(other / "prompts.safetensors", dump / "prompts.safetensors")
    with pytest.raises(DumpError, match="prompt_ptr: 5 prompts, the manifest says 3"):
        _ = open_dump(dump).prompts
