"""Bad arguments and behaviours: refused by name, value and valid range, before anything is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny
from pie_fast import open_dump
from running import BUDGET, Outcome, World, contents, run_cli, write_behavior, written


def discover(world: World, out: Path, *args: object, k: int = BUDGET) -> Outcome:
    return run_cli("discover", *world.sources, "-k", k, "--out", out, "--no-curve", *args)


@pytest.mark.parametrize("budget", [0, -3])
def test_budget_below_1(world: World, dump: Path, tmp_path: Path, budget: int) -> None:
    for said in (
        discover(world, tmp_path / "run", k=budget),
        run_cli("select", dump, "--budget", budget),
        run_cli("demo", "--budget", budget),
    ):
        said.refused("--budget", f"{budget} is not valid", "at least 1")
    assert not (tmp_path / "run").exists()


def test_too_few_halves(world: World, tmp_path: Path) -> None:
    for halves in (-1, 7):
        discover(world, tmp_path / "run", "--missed", halves).refused("missed", f"{halves} is not")
    assert not (tmp_path / "run").exists()


def test_budget_is_no_number(dump: Path) -> None:
    run_cli("select", dump, "--budget", "many").refused("--budget", "many", "int")


def test_budget_above_the_pool(world: World, dump: Path) -> None:
    assert run_cli("synergy", dump, *world.model_and_clt, "--pool", 12).code == 0
    said = run_cli("select", dump, "-k", 13, "--method", "fap-synergy")
    said.refused("budget 13", "pool of 12")


@pytest.mark.parametrize("method", ["random", "magnitude", "fap"])
def test_budget_above_the_active_features(dump: Path, method: str) -> None:
    n = tiny.N_LAYERS * tiny.N_FEATURES + 1
    run_cli("select", dump, "-k", n, "--method", method).refused(n, "features")


def test_a_budget_too_large_for_the_model_keeps_its_capture(world: World, tmp_path: Path) -> None:
    n, out = tiny.N_LAYERS * tiny.N_FEATURES + 1, tmp_path / "run"
    active = "active features"
    discover(world, out, k=n).refused(f"budget {n}", active)
    discover(world, out, "--method", "fap", "--resume", k=n).refused(n)
    assert not out.exists()
    assert open_dump(tmp_path / "run.partial" / "dump").complete
    discover(world, out).refused("run.partial", "--resume", "--force")
    said = discover(world, out, "--method", "fap", "--resume", "--json", k=5)
    assert len(said.json["features"]) == 5


@pytest.mark.parametrize("method", ["conditional-gradient", "relp", "exact", "acdc"])
def test_select_refuses_what_needs_the_model(dump: Path, method: str) -> None:
    said = run_cli("select", dump, "-k", 3, "--method", method)
    said.refused(f"method '{method}' needs the model: pie-fast discover")


@pytest.mark.parametrize(
    ("method", "option", "said"),
    [
        ("acdc", "pool", "'pool' of selector acdc is not KEY=VALUE"),
        ("acdc", "pool=many", "option pool of selector acdc is 'many', must be an integer"),
        ("acdc", "depth=2", "acdc has no option 'depth'; it has: pool, sweeps, block, rank_by"),
        ("random", "luck=2", "random has no option 'luck'; it has: none"),
        ("paper", "pool=2", "selector 'paper' is not one of random"),
    ],
)
def test_options_of_a_method(
    world: World, tmp_path: Path, method: str, option: str, said: str
) -> None:
    outcome = discover(world, tmp_path / "run", "--method", method, "--method-option", option)
    outcome.refused(said)
    assert not list(tmp_path.iterdir())


def test_a_wrong_value_of_an_option(world: World, tmp_path: Path) -> None:
    given = ("--method", "fap-ig", "--method-option", "steps=0")
    discover(world, tmp_path / "run", *given).refused("steps is 0, must be at least 1")


def test_pool_above_the_active_features(world: World, dump: Path) -> None:
    said = run_cli("synergy", dump, *world.model_and_clt, "--pool", 1000)
    said.refused("pool 1000", "active features")


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [
        ("--method", "best", "fap-synergy"),
        ("--metric", "accuracy", "logit-diff"),
        ("--baseline", "noise", "counterfactual"),
        ("--rank-by", "luck", "mean_abs"),
        ("--gradient", "half", "frozen"),
        ("--direction", "up", "denoising"),
        ("--estimator", "guess", "exact"),
        ("--bonus", "none", "sum"),
        ("--batch-size", "0", "at least 1"),
        ("--prompts", "1", "at least 2"),
        ("--pool-factor", "0.5", "at least 1"),
        ("--device", "abacus", "cuda"),
        ("--device", "cuda:99", "CUDA devices"),
    ],
)
def test_unknown_values(world: World, tmp_path: Path, option: str, value: str, valid: str) -> None:
    said = discover(world, tmp_path / "run", option, value)
    said.refused(value, valid, option.removeprefix("--"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["error", "attention", "activations", "kl-direction"])
def test_unknown_switches_of_evaluate(world: World, tmp_path: Path, option: str) -> None:
    said = run_cli("evaluate", *world.sources, "--features", tmp_path, f"--{option}", "maybe")
    said.refused(f"--{option}", "maybe")


def test_unknown_command_and_option(dump: Path) -> None:
    run_cli("find").refused("find")
    run_cli("select", dump, "-k", 3, "--speed", "9").refused("--speed")
    run_cli("select", dump).refused("--budget")
    run_cli("convert").refused("command")


def test_unknown_behavior(world: World, tmp_path: Path) -> None:
    said = run_cli("capture", *world.model_and_clt, "--behavior", "irony", "-o", tmp_path / "d")
    said.refused("unknown behavior 'irony'", "ioi", ".jsonl")
    missing = tmp_path / "none.jsonl"
    said = run_cli("capture", *world.model_and_clt, "--behavior", missing, "-o", tmp_path / "d")
    said.refused(missing)
    said = run_cli("capture", *world.model_and_clt, "--behavior", "ioi", "-o", tmp_path / "d")
    said.refused("tokenizer")


def capture_lines(world: World, folder: Path, *lines: dict[str, Any]) -> Outcome:
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = run_cli(
        *("capture", *world.model_and_clt, "--behavior", path, "--out", folder / "dump", "--json")
    )
    assert not (folder / "dump").exists()
    return said


GOOD = {"tokens": [0, 5, 6], "answer_id": 3, "foil_id": 4}


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ([], ["is empty"]),
        ([GOOD, {**GOOD, "tokens": []}], ["line 2", "tokens is empty"]),
        ([GOOD, {**GOOD, "tokens": [1] * 41}], ["41 tokens", "context of 40"]),
        ([GOOD, {**GOOD, "answer_id": 60}], ["answer", "60", "0 to 59"]),
        ([GOOD, {**GOOD, "answer_id": -1}], ["line 2", "answer_id", "-1", ">= 0"]),
        ([GOOD, {**GOOD, "foil_id": 3}], ["line 2", "foil 3", "differ"]),
        ([GOOD, {"tokens": [1]}], ["line 2", "answer"]),
        ([{**GOOD, "counterfactual_tokens": [1]}, GOOD], ["line 1", "counterfactual", "1", "3"]),
        ([{**GOOD, "split": "test"}], ["line 1", "'test'", "held_out"]),
        ([{**GOOD, "answer": " yes"}], ["line 1", "answer_id"]),
        ([{"prompt": "a", "answer_id": 3}], ["line 1", "'prompt'", "tokenizer"]),
        ([{**GOOD, "split": "held_out"}], ["no selection prompts"]),
    ],
)
def test_bad_behaviors(
    world: World, tmp_path: Path, lines: list[dict[str, Any]], parts: list[str]
) -> None:
    capture_lines(world, tmp_path, *lines).refused(*parts)


def test_behavior_that_is_no_json(world: World, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(GOOD) + "\n{tokens: 1}\n")
    sources = (*world.model_and_clt, "--behavior", tmp_path / "b.jsonl")
    run_cli("capture", *sources, "-o", tmp_path / "d").refused("b.jsonl, line 2", "not JSON")


def test_metric_that_needs_what_the_behavior_lacks(world: World, tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text('{"tokens": [0, 5, 6], "answer_id": 3}\n' * 4)
    sources = (*world.model_and_clt, "--behavior", path, "-o", tmp_path / "d")
    run_cli("capture", *sources, "--metric", "logit-diff").refused("logit-diff", "foil")
    run_cli("capture", *sources, "--baseline", "counterfactual").refused("counterfactual")
    assert not (tmp_path / "d").exists()


def test_answer_of_two_tokens(world: World, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<bos>", "the", "cat", "sat", "down", "up"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<bos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model = Path(shutil.copytree(world.model, tmp_path / "model"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>", unk_token="<bos>"
    ).save_pretrained(model)
    path = tmp_path / "b.jsonl"
    line = {"prompt": "the cat sat", "answer": "down", "foil": "up"}
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, "answer": "down up"}) + "\n")
    command = ("capture", "--model", model, "--clt", world.clt, "--behavior", path)
    run_cli(*command, "-o", tmp_path / "d").refused("line 2", "'answer'", "'down up'", "2 tokens")
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, "prompt": "the cat"}) + "\n")
    assert run_cli(*command, "-o", tmp_path / "d").code == 0


def test_bad_features_files(world: World, tmp_path: Path) -> None:
    path = tmp_path / "selection.json"
    for text, parts in (
        ("[", ["not valid JSON"]),
        ("{}", ["features"]),
        ('{"features": [{"layer": 0}]}', ["features[0]", "index"]),
        ('{"features": [{"layer": 0, "index": -1}]}', ["features[0]", "-1"]),
        ('{"features": [{"layer": 3, "index": 1}]}', ["L3:1", "0 to 2"]),
        ('{"features": [{"layer": 0, "index": 1}, {"layer": 0, "index": 1}]}', ["twice"]),
    ):
        path.write_text(text)
        run_cli("evaluate", *world.sources, "--features", path).refused(*parts)
    run_cli("evaluate", *world.sources, "--features", tmp_path / "no").refused(tmp_path / "no")


def test_dumps_that_cannot_be_read(world: World, dump: Path, tmp_path: Path) -> None:
    manifest = dump / "manifest.json"
    content = written(manifest)
    manifest.write_text(json.dumps({**content, "version": 2}))
    commands = (
        ("inspect", dump),
        ("top", dump),
        ("select", dump, "-k", 2),
        ("synergy", dump, *world.model_and_clt),
    )
    for command in commands:
        run_cli(*command).refused("manifest.json", "version", "2")
    run_cli("inspect", tmp_path / "nothing").refused(tmp_path / "nothing")
    del content["metric"]
    manifest.write_text(json.dumps(content))
    run_cli("synergy", dump, *world.model_and_clt).refused("manifest.json", "metric is missing")
    shard = dump / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    run_cli("inspect", dump).refused(shard.name)


def test_synergy_of_another_clt(world: World, dump: Path, tmp_path: Path) -> None:
    other = tiny.write_clt(tmp_path / "relu", jump=False)
    said = run_cli("synergy", dump, "--model", world.model, "--clt", other)
    said.refused("captured with CLT", other)
    assert not list(dump.glob("synergy*"))


def test_files_that_exist_are_kept(world: World, dump: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.json"
    taken.write_text("mine")
    run_cli("select", dump, "-k", 2, "--out", taken).refused(taken, "--force")
    features = ("--features", dump / "manifest.json")
    run_cli("evaluate", *world.sources, *features, "--out", taken).refused(taken, "--force")
    before = contents(dump)
    run_cli("capture", *world.sources, "--out", dump).refused(dump, "--force", "--resume")
    discover(world, tmp_path).refused(tmp_path, "--force")
    assert (taken.read_text(), contents(dump)) == ("mine", before)
    assert run_cli("select", dump, "-k", 2, "--out", taken, "--force").code == 0
    assert len(json.loads(taken.read_text())["features"]) == 2


def test_force_replaces_nothing_but_a_run(world: World, dump: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("dear")
    discover(world, tmp_path / "photos", "--force").refused("photos", "not a run")
    said = run_cli("capture", *world.sources, "--out", tmp_path / "photos", "--force")
    said.refused("photos", "not a feature dump")
    assert contents(tmp_path / "photos") == {"one.jpg": b"dear"}


def test_resume_of_another_capture(world: World, dump: Path, tmp_path: Path) -> None:
    before = contents(dump)
    other = write_behavior(tmp_path / "other.jsonl", 4, 0, seed=9)
    said = run_cli(
        *("capture", *world.model_and_clt, "--behavior", other, "--out", dump, "--resume")
    )
    said.refused("manifest.json", "behavior")
    assert contents(dump) == before
