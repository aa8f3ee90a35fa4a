"""The commands over saved activations, in processes of their own where that matters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import edit_manifest, make_entries, small_dump, write_dump
from test_decoder import write_clt
from test_delphi import cached, write_splits
from typer.testing import CliRunner

from pie_fast import open_dump
from pie_fast.cli import app as APP
from pie_fast.errors import OutputExistsError, PieFastError


def run(*args: str | Path) -> str:
    result = CliRunner().invoke(APP, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def run_json(*args: str | Path) -> dict[str, Any]:
    lines = run(*args, "--json").splitlines()
    assert len(lines) == 1
    content: dict[str, Any] = json.loads(lines[0])
    return content


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns = make_entries(np.random.default_rng(0), 300)
    return write_dump(tmp_path_factory.mktemp("cli") / "d", columns)


def test_inspect(dump: Path) -> None:
    content = run_json("inspect", dump, "--deep")
    opened = open_dump(dump)
    entries = opened.entries(0, 300)
    assert content["n_active"] == opened.n_active
    assert content["n_active_features"] == len(opened.active_features())
    assert content["settings"]["metric"] == "logit-diff"
    assert content["checked"] == "deep"
    histogram = content["activation"]["histogram"]
    sizes = np.abs(entries.activation[entries.activation != 0])
    assert sum(row["n"] for row in histogram) == len(sizes)
    for row in histogram:
        assert row["n"] == ((sizes >= row["from"]) & (sizes < row["to"])).sum()
    assert content["activation"]["n_zero"] == (entries.activation == 0).sum()
    low, high = float(entries.activation.min()), float(entries.activation.max())
    assert content["activation"]["range"] == [low, high]
    assert sum(row["n_active"] for row in content["layers"]) == opened.n_active
    text = run("inspect", dump)
    assert "300 prompts" in text
    assert "entries per layer" in text
    assert "█" in text


def test_inspect_of_empty_dumps(tmp_path: Path) -> None:
    assert run_json("inspect", small_dump(tmp_path / "d", n=0))["n_active"] == 0
    assert "0 prompts" in run("inspect", tmp_path / "d")


def test_top(dump: Path) -> None:
    ids, scores = open_dump(dump).top_k(7, "magnitude", layers=[1, 2])
    args = ("top", dump, "-k", "7", "--rank-by", "magnitude", "--layer", "1", "--layer", "2")
    content = run_json(*args)
    assert content["features"] == [
        {"layer": int(i) // 40, "index": int(i) % 40, "score": float(s), "rank": rank}
        for rank, (i, s) in enumerate(zip(ids, scores, strict=True))
    ]
    assert f"L{ids[0] // 40}:{ids[0] % 40}" in run(*args)
    with pytest.raises(PieFastError, match="budget 500 exceeds the 120 active features"):
        run("top", dump, "-k", "500")


def test_an_incomplete_dump_is_told_on_standard_error(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "d")
    edit_manifest(path, n_prompts_planned=30)
    result = CliRunner().invoke(APP, ["top", str(path), "-k", "1", "--json"])
    assert json.loads(result.stdout)["complete"] is False
    assert "is incomplete: 20 of 30 prompts" in result.stderr


def test_merge(dump: Path, tmp_path: Path) -> None:
    content = run_json("merge", dump, dump, tmp_path / "merged")
    assert content["n_prompts"] == 600
    with pytest.raises(PieFastError, match="at least one dump and an output folder"):
        run("merge", dump)


def test_convert_delphi(tmp_path: Path) -> None:
    module = write_splits(tmp_path / "layers.2.mlp", *cached())
    content = run_json("convert", "delphi", module, tmp_path / "d")
    assert (content["n_layers"], content["n_features"], content["n_active"]) == (3, 1000, 4000)
    content = run_json(
        "convert", "delphi", module, tmp_path / "e", "--layer", "0", "--n-features", "2000"
    )
    assert (content["n_layers"], content["n_features"]) == (1, 2000)


def test_what_cannot_be_resumed_does_not_say_so(dump: Path, tmp_path: Path) -> None:
    module = write_splits(tmp_path / "layers.2.mlp", *cached())
    for made in (("merge", dump), ("convert", "delphi", module)):
        with pytest.raises(OutputExistsError, match="exists; use --force to replace it$"):
            run(*made, dump)


def test_redundancy(dump: Path, tmp_path: Path) -> None:
    clt = write_clt(tmp_path / "clt")
    args = ("redundancy", dump, "--pool", "20", "--clt", clt, "--pairs", "4")
    content = run_json(*args)
    assert [row["rank"] for row in content["features"]] == list(range(20))
    assert len(content["pairs"]) == 4
    assert "cosine" in run(*args)


def test_the_package_itself_is_the_command_line(dump: Path) -> None:
    command = [sys.executable, "-m", "pie_fast", "top", str(dump), "-k", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == run("top", dump, "-k", "2", "--json")


def test_no_torch(dump: Path) -> None:
    """`import pie_fast` and the commands over dumps load no torch."""
    code = (
        "import sys, pie_fast; from pie_fast.cli import saved; import typer; app = typer.Typer();"
        "saved.register(app); app(sys.argv[1:], standalone_mode=False);"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'torch'"
    )
    for args in (["inspect", dump, "--deep", "--json"], ["top", dump, "-k", "3", "--json"]):
        command = [sys.executable, "-c", code, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
