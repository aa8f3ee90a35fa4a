"""The command line on a local checkpoint of every model family, from text to `result.json`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import families
from running import run_cli, written

KEPT = 4


def write_text_behavior(path: Path, n_prompts: int = 10) -> Path:
    """Prompts of words of the tiny tokenizer, with counterfactuals; half are held out."""
    rng = np.random.default_rng(2)

    def words(n: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(2, families.VOCAB, n))

    rows = [
        {
            "prompt": words(8),
            "counterfactual": words(8),
            "answer": "w3",
            "foil": "w5",
            "split": ("selection", "held_out")[number % 2],
        }
        for number in range(n_prompts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("family", families.FAMILIES)
def test_discover_on_every_family(family: str, tmp_path: Path) -> None:
    read, write = families.HOOKS[family]
    model = families.write_model(tmp_path / "model", family)
    clt = families.write_clt(tmp_path / "clt", read, write)
    behavior = write_text_behavior(tmp_path / "some.jsonl")
    sources = ("--model", model, "--clt", clt, "--behavior", behavior)
    short = ("--budget", KEPT, "--stability", 2, "--no-curve", "--device", "cpu", "--json")
    said = run_cli("discover", *sources, *short, "--out", tmp_path / "run")
    result = written(tmp_path / "run" / "result.json")
    spent = {key: said.json[key] for key in ("timings", "model_calls")}
    assert said.json == {**result, **spent, "folder": str(tmp_path / "run")}
    assert len(result["features"]) == len(result["interpretations"]) == KEPT
    assert all(np.isfinite(row["score"]) for row in result["features"])
    assert len(result["evaluation"]["kl_divergences"]) == 5
    fit = result["reconstruction"]
    assert (fit["read_hook"], fit["write_hook"], fit["n_prompts"]) == (read, write, 5)
    assert len(fit["by_layer"]) == families.N_LAYERS
    # the CLT is random
    assert f"note: the CLT reads {read} and writes {write}, and leaves " in said.fit_note

    options = ("--method", "fap-synergy", "--gradient", "frozen", "--baseline", "mean")
    again = run_cli("discover", *sources, *short, *options, "--out", tmp_path / "frozen")
    assert again.json["settings"]["gradient"] == "frozen"
    assert len(again.json["features"]) == KEPT


def test_capture_tells_of_the_tensors(tmp_path: Path) -> None:
    model = families.write_model(tmp_path / "model", "gemma2")
    clt = families.write_clt(tmp_path / "clt", "hook_mlp_in", "hook_mlp_out")
    behavior = write_text_behavior(tmp_path / "some.jsonl")
    sources = ("--model", model, "--clt", clt, "--behavior", behavior)
    said = run_cli("capture", *sources, "--out", tmp_path / "dump", "--json")
    assert said.json["reconstruction"]["read_hook"] == "hook_mlp_in"
    assert said.fit_note.count("note: the CLT reads hook_mlp_in and writes hook_mlp_out") == 1


def test_model_and_clt_of_different_families(tmp_path: Path) -> None:
    """Sizes and hooks that do not fit are refused in one line."""
    behavior = write_text_behavior(tmp_path / "some.jsonl")
    read, write = families.HOOKS["gemma2"]
    for family in families.FAMILIES:
        model = families.write_model(tmp_path / family, family)
        for number, (clt, parts) in enumerate(
            (
                ({"d_model": 48}, ("d_model 48", "has 32")),
                ({"n_layers": 6}, ("number of layers 6", "has 4")),
                ({"write": "ln1_post.hook_out"}, ("'ln1_post.hook_out'", "hook_mlp_out")),
                ({"read": "h.0.mlp"}, ("'h.0.mlp'", "hook_resid_mid")),
            )
        ):
            options = {"read": read, "write": write, **clt}
            folder = families.write_clt(tmp_path / f"{family}-{number}", **options)
            sources = ("--model", model, "--clt", folder, "--behavior", behavior)
            said = run_cli("capture", *sources, "--out", tmp_path / "dump")
            said.refused(model, *parts)
            assert not (tmp_path / "dump").exists()
