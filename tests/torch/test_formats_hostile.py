"""Checkpoints from strangers: configurations and archives that would fill the memory or lie."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import writing_clts as writing
from pie_fast.clt import load_clt
from pie_fast.clt.config import read_yaml
from pie_fast.clt.hub import hub_file
from pie_fast.clt.npz import Archive
from pie_fast.errors import CheckpointError

HOOKS = "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"


def nested(line: str, levels: int = 12) -> str:
    """YAML whose every level holds the one before nine times."""
    lines = ["b0: &b0 {x: y}"]
    lines += [line.format(i, ", ".join([f"*b{i - 1}"] * 9)) for i in range(1, levels)]
    return "\n".join(lines) + f"\nmodel: *b{levels - 1}\n"


def test_aliases_do_not_grow(tmp_path: Path) -> None:
    folder = tmp_path / "clt"
    writing.crosslayer(folder, writing.plain())
    (folder / "config.yaml").write_text(nested("b{0}: &b{0} [{1}]"))
    with pytest.raises(
        CheckpointError, match=r"config.yaml: model is .*must be a mapping"
    ) as found:
        load_clt(folder)
    assert len(str(found.value)) < 1000


def test_merged_mappings_are_refused_before_they_grow(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(nested("b{0}: &b{0} {{<<: [{1}]}}"))
    with pytest.raises(CheckpointError, match="merging of mappings"):
        read_yaml(file)
    file.write_text("a: &a [1]\nb: *a\n")
    assert read_yaml(file) == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    "text", ["[" * 5000, "? " * 5000, "a: " + "9" * 5000, "a: 1:" + "1:" * 5000 + "1", "\xff"]
)
def test_odd_yaml_is_an_error_or_a_mapping(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode("latin-1"))
    try:
        assert isinstance(read_yaml(file), dict)
    except CheckpointError as error:
        assert str(file) in str(error)


def test_deep_and_long_yaml_takes_no_time(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: " + "[" * 100_000)
    with pytest.raises(CheckpointError, match="nested deeper than 64 brackets"):
        read_yaml(file)
    file.write_text("a: " + "[" * 64 + "]" * 64)
    assert read_yaml(file)["a"]
    file.write_text("a: b\n" * 300_000)
    with pytest.raises(CheckpointError, match=r"takes 1500000 bytes, must be at most 1048576"):
        read_yaml(file)


@pytest.mark.parametrize("value", ["0x" + "f" * 9000, "1e999", ".nan", "1_000_000_000_000_000_000"])
def test_enormous_sizes(value: str, tmp_path: Path) -> None:
    folder = tmp_path / "clt"
    writing.crosslayer(folder, writing.plain())
    file = folder / "config.yaml"
    lines = file.read_text().splitlines()
    (at,) = [i for i, line in enumerate(lines) if "d_features:" in line][:1]
    lines[at] = lines[at].partition(":")[0] + f": {value}"
    file.write_text("\n".join(lines))
    with pytest.raises(CheckpointError, match=r"d_features is .* must be a whole number"):
        load_clt(folder)


def test_deep_json(tmp_path: Path) -> None:
    folder = tmp_path / "clt"
    writing.sae_lens(folder, writing.plain(crosses=False, skip=True))
    file = folder / "layer-1" / "cfg.json"
    for levels in (5000, 900):
        config = json.loads(file.read_text()) if levels == 900 else {}
        text = json.dumps({**config, "architecture": "DEEP"})
        file.write_text(text.replace('"DEEP"', "[" * levels + "]" * levels))
        with pytest.raises(CheckpointError, match=r"cfg\.json: (not valid JSON|architecture is)"):
            load_clt(folder)
        if levels == 5000:
            writing.sae_lens(tmp_path / "again", writing.plain(crosses=False, skip=True))
            file = tmp_path / "again" / "layer-1" / "cfg.json"
            folder = tmp_path / "again"


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.safetensors", "a/../../b"])
def test_listed_files_lie_in_the_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "clt"
    folder.mkdir()
    (tmp_path / "outside.safetensors").write_bytes(b"")
    text = f"model_kind: transcoder_set\n{HOOKS}transcoders: ['{name}']\n"
    (folder / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match="which is not in the folder"):
        load_clt(folder)


def test_a_hub_file_stays_in_its_repository() -> None:
    for uri in ("hf://org/repo/../../x", "hf://org/repo/a/../b", "hf://org/repo/.."):
        with pytest.raises(CheckpointError, match="must be hf://org/repo"):
            hub_file(uri)


def write_npz(path: Path, shape: str, content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("W_enc.npy", data)
    return path


def test_a_zip_bomb(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", "(32, 1000000)", bytes(128_000_000), zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"W_enc.npy would grow from .* 100 times"):
        Archive(file)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    # Zeros of an ordinary size compress as well, and are read.
    small = write_npz(tmp_path / "b.npz", "(10, 1000)", bytes(40_000), zipfile.ZIP_DEFLATED)
    assert not Archive(small).read("W_enc", (10, 1000)).any()


@pytest.mark.parametrize(
    "shape", ["(-1, 2)", "(1000000000000, 1000000000000)", "(2, 2.0)", "'x'", "(2, 3)", "(" * 900]
)
def test_npz_shapes_that_lie(shape: str, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", shape, np.ones(4, np.float32).tobytes())
    with pytest.raises(CheckpointError, match=str(file)):
        Archive(file)


def test_an_npz_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, W_enc=np.array([print, "x"], dtype=object))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="must be floats"):
        Archive(tmp_path / "a.npz")
