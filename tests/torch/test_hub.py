"""Transcoders from a hub: a local server of its protocol, in a process that knows no other hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from hub_server import serving
from plain_transcoders import plain_layers, write_set

LOAD = """
import sys
from pie_fast.clt import load_clt
from pie_fast.errors import CheckpointError
try:
    clt = load_clt(sys.argv[1])
except CheckpointError as error:
    print("refused:", " ".join(str(error).split()))
else:
    print("loaded:", clt.n_layers, clt.n_features, clt.b_dec.sum().item())
"""

BOOT = LOAD.replace("pie_fast.clt import load_clt", "pie_fast.replacement_model import load_model")
BOOT = BOOT.replace(
    "load_clt(sys.argv[1])", "load_model(sys.argv[1], sys.argv[2], device='cpu').clt"
)


def load(source: str, address: str, cache: Path, *clt: Path) -> str:
    """What a fresh process says of it: the hub client reads its settings once."""
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    command = [sys.executable, "-c", BOOT if clt else LOAD, source, *map(str, clt)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | settings, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hub_ids_and_addresses(tmp_path: Path) -> None:
    tiny.write_clt(tmp_path / "repo" / "sub" / "clt")
    write_set(tmp_path / "repo" / "set", plain_layers())
    (tmp_path / "repo" / "readme.md").write_text("two of them")
    with serving(tmp_path / "repo", "someone/clts") as address:
        local = load(str(tmp_path / "repo" / "sub" / "clt"), address, tmp_path / "cache")
        assert local.startswith("loaded: 3 48")
        for source in ("someone/clts/sub/clt", "hf://someone/clts/sub/clt?revision=main"):
            assert load(source, address, tmp_path / "cache") == local
        assert load("someone/clts/set@main", address, tmp_path / "cache").startswith("loaded: 3 48")
        said = load("someone/clts/nothing", address, tmp_path / "cache")
        assert "refused:" in said and "someone/clts" in said


@pytest.mark.parametrize("name", ["W_enc_1.safetensors", "config.yaml"])
def test_a_download_that_breaks_off_is_refused_and_goes_on(name: str, tmp_path: Path) -> None:
    tiny.write_clt(tmp_path / "repo")
    with serving(tmp_path / "repo", "someone/clt", cut=name) as address:
        said = load("someone/clt", address, tmp_path / "cache")
    assert said.startswith("refused: someone/clt"), said
    with serving(tmp_path / "repo", "someone/clt") as address:
        assert load("someone/clt", address, tmp_path / "cache").startswith("loaded: 3 48")


def test_a_model_from_a_hub(tmp_path: Path, tiny_folders: tuple[Path, Path]) -> None:
    model, clt = tiny_folders
    cache = tmp_path / "cache"
    with serving(model, "someone/model", cut="model.safetensors") as address:
        assert load("someone/model", address, cache, clt).startswith("refused: someone/model")
    with serving(model, "someone/model") as address:
        assert load("someone/model", address, cache, clt).startswith("loaded: 3 48")


def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    said = load("someone/clt", "http://127.0.0.1:9", tmp_path / "cache")
    assert said.startswith("refused: someone/clt") and "pass a local folder" in said
