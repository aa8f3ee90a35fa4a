"""Shards from strangers: headers of many megabytes, misaligned data, links and odd names."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from making import edit_manifest, replace_shard, small_dump

from pie_fast import DumpError, open_dump

SHARD = "shard-00000.safetensors"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return small_dump(tmp_path / "d", n=3)


def parts(path: Path) -> tuple[str, bytes]:
    """The JSON and the data of the shard."""
    data = (path / SHARD).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end].decode(), data[end:]


def with_header(text: bytes, data: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "entry",
    [
        b'{"dtype":"U8","data_offsets":[0,0],"shape":[%s0]}',
        b'{"dtype":"U8","data_offsets":[0,0],"y":[%s0]}',
        b"[%s0]",
    ],
)
@pytest.mark.parametrize("unit", [b"0,", b"[],", b'{"":0},'])
def test_long_headers_take_no_memory(dump: Path, entry: bytes, unit: bytes) -> None:
    text = b'{"x":' + entry % (unit * (20_000_000 // len(unit))) + b"}"
    replace_shard(dump, with_header(text, b""))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DumpError, match=r"x: takes \d{8} bytes of the header, .* at most 4096"):
        open_dump(dump)
    # kB; as values the last of them took 1.8 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_the_longest_header_and_one_byte_more(dump: Path) -> None:
    (dump / SHARD).write_bytes((100_000_000).to_bytes(8, "little"))
    os.truncate(dump / SHARD, 100_000_009)
    edit_manifest(dump, shards=[{**line(dump), "bytes": 100_000_009}])
    with pytest.raises(DumpError, match="header: is not the JSON of a header"):
        open_dump(dump)
    with (dump / SHARD).open("r+b") as file:
        file.write((100_000_001).to_bytes(8, "little"))
    with pytest.raises(DumpError, match="length 100000001 exceeds the 100000000 bytes"):
        open_dump(dump)


def line(path: Path) -> dict[str, object]:
    shard: dict[str, object] = json.loads((path / "manifest.json").read_text())["shards"][0]
    return shard


def test_a_manifest_that_is_too_long(dump: Path) -> None:
    os.truncate(dump / "manifest.json", (1 << 25) + 1)
    with pytest.raises(DumpError, match="of 33554433 bytes exceeds the 33554432"):
        open_dump(dump)


def test_misaligned_data_is_read_all_the_same(dump: Path) -> None:
    scores = open_dump(dump).score().tobytes()
    text, data = parts(dump)
    for spaces in range(1, 9):
        replace_shard(dump, with_header(text.encode() + b" " * spaces, data))
        assert open_dump(dump).score().tobytes() == scores
        open_dump(dump).verify()


@pytest.mark.parametrize("value", ["-1", "1e3", "1.5", "9" * 30, "1" * 5000, "null", "[" * 500])
@pytest.mark.parametrize("key", ["data_offsets", "shape"])
def test_offsets_and_shapes_that_are_no_sizes(dump: Path, key: str, value: str) -> None:
    text, data = parts(dump)
    header = json.loads(text)
    header["feature"][key] = ["@"] * len(header["feature"][key])
    broken = json.dumps(header).replace('"@"', value, 1).replace('"@"', "0")
    replace_shard(dump, with_header(broken.encode(), data))
    with pytest.raises(DumpError, match=SHARD):
        open_dump(dump)


@pytest.mark.parametrize("name", ["\x00", "a\x00b", "a/b", "./a", "a/", "a" * 5000, "..", "."])
def test_names_of_shards(dump: Path, name: str) -> None:
    edit_manifest(dump, shards=[{**line(dump), "file": name}])
    with pytest.raises((DumpError, OSError)):
        open_dump(dump)


def test_links(dump: Path, tmp_path: Path) -> None:
    scores = open_dump(dump).score().tobytes()
    shutil.move(dump / SHARD, tmp_path / "elsewhere")
    (dump / SHARD).symlink_to(tmp_path / "elsewhere")
    # As in the cache of a hub, where every file is a link.
    assert open_dump(dump).score().tobytes() == scores
    for target, kind in ((tmp_path, DumpError), (dump / SHARD, OSError), ("/nowhere", OSError)):
        (dump / SHARD).unlink()
        (dump / SHARD).symlink_to(target)
        with pytest.raises(kind, match=SHARD):
            open_dump(dump)


def test_names_that_are_not_utf_8(dump: Path) -> None:
    text, data = parts(dump)
    for broken in (b"\xff", b"\xed\xa0\x80", b"\\ud800"):
        changed = text.encode().replace(b'"feature"', b'"' + broken + b'"')
        replace_shard(dump, with_header(changed, data))
        with pytest.raises(DumpError, match=f"{SHARD}: (header: is not|feature: is missing)"):
            open_dump(dump)
