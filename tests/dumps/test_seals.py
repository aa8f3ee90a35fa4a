"""A file that was changed after it was written says so: any bit of it."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import edit_manifest, make_prompts, small_dump

from pie_fast import SynergyMatrix, open_dump
from pie_fast.dump import DumpWriter
from pie_fast.errors import DumpError, PieFastError
from pie_fast.seals import unsealed, write_sealed

VALUE = {"kl": 0.25, "features": [{"layer": 1, "index": 3}], "note": "months"}


def flipped(file: Path, at: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def flip_first(file: Path, column: str) -> None:
    """The lowest bit of the first number: still a number, and nothing else would tell."""
    data = file.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    flipped(file, begin + json.loads(data[8:begin])[column]["data_offsets"][0])


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "result.json"
    write_sealed(path, VALUE)
    return path


def read(path: Path, data: bytes) -> object:
    return unsealed(path, data, json.loads(data.decode()))


def test_a_sealed_file_reads_as_what_was_written(sealed: Path) -> None:
    assert read(sealed, sealed.read_bytes()) == VALUE
    assert list(json.loads(sealed.read_text()))[-1] == "checksum"
    write_sealed(sealed, json.loads(sealed.read_text()))
    assert read(sealed, sealed.read_bytes()) == VALUE


@given(st.data())
def test_any_bit_of_a_sealed_file_is_seen(sealed: Path, data: st.DataObject) -> None:
    content = bytearray(sealed.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError) as error:
        read(sealed, bytes(content))
    parsing = isinstance(error.value, json.JSONDecodeError | UnicodeDecodeError)
    assert parsing or "result.json: checksum" in str(error.value)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return small_dump(tmp_path / "dump", n=600, shard_bytes=1)


def test_a_bit_that_falls_in_a_shard(dump: Path) -> None:
    shard = dump / "shard-00001.safetensors"
    flip_first(shard, "attribution")
    opened = open_dump(dump)
    opened.entries(0, 256)  # of another shard
    promised = opened.manifest["shards"][1]["crc32"]
    found = f"{zlib.crc32(shard.read_bytes()):08x}"
    said = rf"shard-00001.safetensors: crc32: is {found}, the manifest says {promised}"
    for read_it in (
        lambda: opened.entries(256, 1),
        opened.score,
        lambda: opened.top_k(1),
        lambda: opened.score("count"),
        lambda: opened.entries_of([1]),
        opened.active_features,
        opened.summary,
    ):
        with pytest.raises(DumpError, match=said):
            read_it()


def test_a_shard_that_changes_while_the_dump_is_open(dump: Path) -> None:
    opened = open_dump(dump)
    opened.score()
    flip_first(dump / "shard-00001.safetensors", "attribution")
    with pytest.raises(DumpError, match=r"shard-00001.safetensors: crc32: is "):
        opened.score()


def test_a_shard_without_a_crc_is_read_as_it_is(dump: Path) -> None:
    shards = open_dump(dump).manifest["shards"]
    edit_manifest(
        dump, shards=[{k: v for k, v in shard.items() if k != "crc32"} for shard in shards]
    )
    flip_first(dump / "shard-00001.safetensors", "attribution")
    opened = open_dump(dump)
    assert len(opened.score()) == opened.n_layers * opened.n_features
    with pytest.raises(DumpError, match=r"shard-00001.safetensors: file: has sha256"):
        opened.verify()


@pytest.mark.parametrize("crc32", ["0", "g" * 8, "+1234567"])
def test_a_crc_that_is_none(dump: Path, crc32: str) -> None:
    first, *others = open_dump(dump).manifest["shards"]
    edit_manifest(dump, shards=[{**first, "crc32": crc32}, *others])
    with pytest.raises(
        DumpError, match=r"manifest.json: shards\[0\].crc32: .* is not 8 hexadecimal digits"
    ):
        open_dump(dump)


def test_a_manifest_that_was_changed(dump: Path) -> None:
    file = dump / "manifest.json"
    whole = file.read_text()
    file.write_text(whole.replace('"n_features": ', '"n_features": 1'))
    with pytest.raises(DumpError, match=r"manifest.json: checksum: is .* the file was changed"):
        open_dump(dump)
    file.write_text(whole.replace('"checksum"', '"chec+sum"'))
    with pytest.raises(DumpError, match=r"manifest.json: checksum: another name"):
        open_dump(dump)
    file.write_text(whole)
    edit_manifest(dump, note="by hand, without the checksum")
    assert open_dump(dump).manifest["note"]


def test_prompts_that_were_changed(dump: Path) -> None:
    before = open_dump(dump).prompts
    prompts = dump / "prompts.safetensors"
    kept = prompts.read_bytes()
    for name in ("metric_clean", "tokens", "answer"):
        flip_first(prompts, name)
        with pytest.raises(DumpError, match=r"prompts.safetensors: .*prompts_hash"):
            open_dump(dump).prompts  # noqa: B018
        prompts.write_bytes(kept)
    np.testing.assert_array_equal(open_dump(dump).prompts.tokens, before.tokens)


def test_prompts_that_were_changed_are_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    prompts = make_prompts(4, 9)
    manifest = {"n_layers": 2, "n_features": 3}
    DumpWriter(path, prompts=prompts, manifest=manifest)
    flipped(path / "prompts.safetensors", -2)
    with pytest.raises(DumpError, match=r"prompts.safetensors"):
        DumpWriter(path, prompts=prompts, manifest=manifest, resume=True)


def test_a_bit_that_falls_in_synergies(tmp_path: Path) -> None:
    matrix = SynergyMatrix.from_dense(
        np.arange(3),
        np.ones((3, 3), np.float32),
        direction="noising",
        estimator="made",
        form="signed",
        n_prompts=1,
    )
    file = tmp_path / "synergy.safetensors"
    matrix.save(file)
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole)
        flipped(file, at, at % 7)
        try:
            found = SynergyMatrix.load(file)
        except (PieFastError, OSError) as error:
            assert "synergy.safetensors" in str(error)
            continue
        np.testing.assert_array_equal(found.values, matrix.values)
        assert (found.estimator, found.n_prompts) == ("made", 1)


def test_one_that_is_copied_is_whole(dump: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dump, tmp_path / "copy"))
    open_dump(copy).verify()
