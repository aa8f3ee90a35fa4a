"""All of PIE on the embedded model: what `pie-fast demo` does, on fewer prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pie_fast.behaviors import load_behavior
from pie_fast.data import demo_clt_path, demo_model_path
from pie_fast.discover import discover
from pie_fast.dump import open_dump
from pie_fast.plan import Plan
from pie_fast.replacement_model import ReplacementModel, load_model
from pie_fast.selectors import Options
from running import written

BUDGET = 50


@pytest.fixture(scope="module")
def demo_model() -> ReplacementModel:
    return load_model(demo_model_path(), demo_clt_path(), device="cpu")


@pytest.fixture(scope="module")
def run(
    demo_model: ReplacementModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("demo") / "run"
    ioi = load_behavior("ioi", tokenizer=demo_model.host.tokenizer, n_prompts=64)
    plan = Plan(BUDGET, Options(method="fap-synergy"), synergy_prompts=4)
    return discover(demo_model, ioi, plan, folder), folder


def test_the_circuit_lies_between_nothing_and_everything(run: tuple[dict[str, Any], Path]) -> None:
    result, _ = run
    evaluation = result["evaluation"]
    assert 0.3 < evaluation["behavioral_fidelity"] < 0.97
    assert len(evaluation["kl_divergences"]) == 32
    assert evaluation["split"] == "held_out"
    by_budget = {p["budget"]: p["mean_kl"] for p in result["curves"]["fap"]}
    assert by_budget[5] > by_budget[50] > by_budget[200], "more features, closer to the model"
    assert by_budget[800] < 1e-3
    random = {p["budget"]: p["mean_kl"] for p in result["curves"]["random"]}
    magnitude = {p["budget"]: p["mean_kl"] for p in result["curves"]["magnitude"]}
    assert by_budget[50] < magnitude[50] < random[50]


def test_only_what_is_kept_is_interpreted(run: tuple[dict[str, Any], Path]) -> None:
    result, _ = run
    assert result["n_interpreted"] == len(result["interpretations"]) == BUDGET
    assert result["n_active"] > 4 * BUDGET
    for feature, told in zip(result["features"], result["interpretations"], strict=True):
        assert (told["layer"], told["index"]) == (feature["layer"], feature["index"])
        assert told["label"]
        assert len(told["promoted"]) == len(told["suppressed"]) == 5
        for context in told["contexts"]:
            assert context["activation"] > 0
            assert 0 <= context["peak"] < len(context["tokens"])


def test_exact_ablation_agrees_with_first_order_effects(run: tuple[dict[str, Any], Path]) -> None:
    result, _ = run
    ablation = result["ablation"]
    assert len(ablation["mean_effect"]) == BUDGET
    # Prompt by prompt they agree; signed means over prompts cancel and need not.
    assert ablation["pearson_per_prompt"] > 0.7
    fap = [told["fap_score"] for told in result["interpretations"]]
    assert ablation["first_order_mean_effect"] == pytest.approx(fap, abs=1e-4), "the same prompts"
    scores = [feature["score"] for feature in result["features"]]
    assert ablation["first_order_mean_abs_effect"] == pytest.approx(scores, abs=1e-4)


def test_everything_is_on_disk(run: tuple[dict[str, Any], Path]) -> None:
    result, folder = run
    spent = {key: result[key] for key in ("timings", "model_calls")}
    assert written(folder / "result.json") | spent == json.loads(json.dumps(result))
    dump = open_dump(folder / "dump")
    assert dump.n_prompts == 32
    ids, scores = dump.top_k(10, "mean_abs")
    assert len(ids) == 10 and (np.diff(scores) <= 0).all()
    assert not list(folder.parent.glob("*.partial"))
    listed = {key for key in result["settings"] if result["settings"][key] is not None}
    assert {"budget", "method", "rank_by", "baseline", "error", "direction", "seed"} <= listed


def test_the_same_seed_gives_the_same_circuit(
    demo_model: ReplacementModel, run: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    ioi = load_behavior("ioi", tokenizer=demo_model.host.tokenizer, n_prompts=64)
    plan = Plan(BUDGET, Options(method="fap-synergy"), synergy_prompts=4, curve=False)
    again = discover(demo_model, ioi, plan, tmp_path / "again")
    assert again["features"] == run[0]["features"]
    assert again["evaluation"] == run[0]["evaluation"]


def test_a_run_with_pair_moves_counts_their_runs(
    demo_model: ReplacementModel, tmp_path: Path
) -> None:
    ioi = load_behavior("ioi", tokenizer=demo_model.host.tokenizer, n_prompts=16)
    plan = Plan(6, pairs=4, curve=False, ablation_prompts=4)
    result = discover(demo_model, ioi, plan, tmp_path / "run")
    assert result["settings"]["pairs"] == 4
    assert result["cost"]["forward"] > result["cost"]["backward"]
    assert len(result["features"]) == 6


@pytest.mark.parametrize("method", ["fap-ig", "acdc"])
def test_an_automatic_budget_of_any_selector(
    demo_model: ReplacementModel, tmp_path: Path, method: str
) -> None:
    ioi = load_behavior("ioi", tokenizer=demo_model.host.tokenizer, n_prompts=32)
    plan = Plan(
        None,
        Options(method=method),
        target_fidelity=0.2,
        curve=False,
        ablation_prompts=4,
        method_options={"steps": 2} if method == "fap-ig" else {"pool": 60, "sweeps": 4},
    )
    result = discover(demo_model, ioi, plan, tmp_path / "run")
    choice = result["budget_choice"]
    assert len(result["features"]) == choice["budget"] == result["settings"]["budget"]
    assert result["selector"] == method
    if method == "fap-ig":
        assert result["cost"] == {"forward": 2.0, "backward": 2.0}, "one order for every budget"
    else:
        assert result["cost"]["forward"] > 60, "the sweeps of all budgets that were tried"
