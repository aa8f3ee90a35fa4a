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

from pie_fast import SynergyMatrix, greedy_select, improve_by_swaps, open_dump
from pie_fast.cli import app as APP
from pie_fast.decoder import redundancy_of_pool
from pie_fast.errors import OutputExistsError, PieFastError


def run(*args: object) -> str:
    result = CliRunner().invoke(APP, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def run_json(*args: object) -> dict[str, Any]:
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
        with pytest.raises(OutputExistsError, match=r"exists; use --force to replace it$"):
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


def test_top_of_some_features(dump: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("3\nL1:5 L2:7\n")
    want = open_dump(dump).top_k(2, features=[3, 45, 87])[0].tolist()
    for given in ("3,L1:5,L2:7", file):
        rows = run_json("top", dump, "-k", 2, "--features", given)["features"]
        assert [row["layer"] * 40 + row["index"] for row in rows] == want
    for bad, message in (
        ("L9:1", "L9:1 is outside the"),
        ("what", "'what' is neither a feature"),
        ("9" * 5000, "'9999"),
    ):
        with pytest.raises(PieFastError, match=f"--features: {message}"):
            run("top", dump, "-k", 1, "--features", bad)


def test_redundancy_goes_to_a_file(dump: Path, tmp_path: Path) -> None:
    clt, out = write_clt(tmp_path / "clt"), tmp_path / "redundancy.safetensors"
    opened = open_dump(dump)
    weights = [1.0, 0.5, 0.0]
    args = ("redundancy", dump, "--pool", 9, "--clt", clt, "--weights", "1,0.5,0", "--out", out)
    run_json(*args)
    ids, _, matrix = redundancy_of_pool(opened, clt, 9, weights=weights)
    saved = SynergyMatrix.load(out)
    order = np.argsort(ids)
    assert saved.pool.tolist() == ids[order].tolist() and not saved.done.any()
    assert saved.redundancy is not None
    assert saved.redundancy.tolist() == matrix[np.ix_(order, order)].tolist()
    with pytest.raises(OutputExistsError, match="use --force"):
        run(*args)
    run(*args, "--force")
    with pytest.raises(PieFastError, match="--weights: 'x' is not a number"):
        run(*args, "--force", "--weights", "1,x")


def test_select_under_constraints(dump: Path, tmp_path: Path) -> None:
    opened = open_dump(dump)
    pool = np.sort(opened.top_k(20)[0])
    values = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    file = tmp_path / "synergy.safetensors"
    identity: dict[str, Any] = {"direction": "noising", "estimator": "made", "form": "signed"}
    SynergyMatrix.from_dense(pool, values + values.T, n_prompts=1, **identity).save(file)
    scores, matrix = opened.score("mean_abs")[pool], values + values.T
    limits = {"must_include": [4, 2], "must_exclude": [0], "layers": pool // 40}
    for swaps in (0, 3):
        args = ("select", dump, "-k", 5, "--method", "fap-synergy", "--synergy", file)
        args += ("--synergy-form", "signed", "--must-include", f"{pool[4]},{pool[2]}")
        args += ("--must-exclude", f"L{pool[0] // 40}:{pool[0] % 40}", "--max-per-layer", 3)
        content = run_json(*args, "--swaps", swaps, "--explain")
        want = greedy_select(scores, matrix, 5, max_per_layer=3, **limits).ids
        steps = content["steps"]
        assert [step["feature"] for step in steps] == [f"L{i // 40}:{i % 40}" for i in pool[want]]
        assert steps[0]["bonus"] == 0 and steps[1]["gain"] == steps[1]["score"] + steps[1]["bonus"]
        want = improve_by_swaps(
            scores, matrix, want, max_swaps=swaps, max_per_layer=3, **limits
        ).ids
        found = [row["layer"] * 40 + row["index"] for row in content["features"]]
        assert found == pool[want].tolist()
        assert "runner-up" in run(*args, "--explain")


def test_constraints_without_synergies(dump: Path) -> None:
    plain = run_json("select", dump, "-k", 6, "--method", "fap")["features"]
    explained = run_json("select", dump, "-k", 6, "--method", "fap", "--explain")
    assert explained["features"] == plain
    best = f"L{plain[0]['layer']}:{plain[0]['index']}"
    without = run_json("select", dump, "-k", 5, "--method", "fap", "--must-exclude", best)
    assert [row["score"] for row in without["features"]] == [row["score"] for row in plain[1:]]
    with pytest.raises(PieFastError, match="method 'random' knows no constraints"):
        run("select", dump, "-k", 5, "--method", "random", "--max-per-layer", 2)
    with pytest.raises(PieFastError, match=r"exceeds the 3 "):
        run("select", dump, "-k", 5, "--method", "fap", "--max-per-layer", 1)


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
