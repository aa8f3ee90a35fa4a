"""The automatic budget: against trying every K, and what it says where none is enough."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pie_fast.budget import _smallest, choose_budget
from pie_fast.cli import app
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.evaluate import measure
from pie_fast.model import Switches
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

PROMPTS = random_prompts(6)
SWITCHES = Switches("counterfactual")


def by_attribution(model: ReplacementModel) -> list[int]:
    found = model.attribute(PROMPTS)
    effects = found.per_prompt(found.active, len(PROMPTS))
    return found.active[np.argsort(-np.abs(effects).mean(1), kind="stable")].tolist()


@given(st.integers(1, 300), st.integers(1, 400))
def test_search_finds_the_first_of_a_rising_curve(largest: int, first: int) -> None:
    asked: list[int] = []

    def reaches(k: int) -> bool:
        asked.append(k)
        return k >= first

    assert _smallest(reaches, largest) == (first if first <= largest else None)
    assert len(set(asked)) == len(asked) <= 2 * largest.bit_length() + 1
    assert max(asked) <= largest


def test_the_choice_reaches_the_target_and_one_less_does_not(tiny_model: ReplacementModel) -> None:
    order = by_attribution(tiny_model)
    found = choose_budget(tiny_model, order, PROMPTS, target_fidelity=0.7, switches=SWITCHES)
    points = {point.budget: point for point in found.tried}
    assert 1 < found.budget < len(order)
    assert points[found.budget].lower >= 0.7 > points[found.budget - 1].lower
    assert sorted(points) == list(points)
    measured = measure(
        tiny_model,
        [order[:k] for k in points],
        PROMPTS,
        metric="logit-diff",
        switches=SWITCHES,
        completeness=False,
    )
    for point, one in zip(points.values(), measured, strict=True):
        assert point.fidelity == pytest.approx(1 - min(float(one.kl.mean()), 1), abs=1e-5)
        assert point.lower <= point.fidelity


def test_a_function_of_k_gives_the_same_and_so_does_a_seed(tiny_model: ReplacementModel) -> None:
    order = by_attribution(tiny_model)
    by_list, by_function = (
        choose_budget(tiny_model, one, PROMPTS, len(order), target_fidelity=0.7)
        for one in (order, lambda k: order[:k])
    )
    assert by_list == by_function
    sure = choose_budget(tiny_model, order, PROMPTS, target_fidelity=0.7, confidence=0.999)
    assert sure.budget >= by_list.budget


def test_bad_input(tiny_model: ReplacementModel) -> None:
    order = by_attribution(tiny_model)
    with pytest.raises(BudgetError, match=r"no budget up to 3 surely reaches fidelity 0\.99"):
        choose_budget(tiny_model, order, PROMPTS, 3, target_fidelity=0.99)
    with pytest.raises(BudgetError, match="largest is None"):
        choose_budget(tiny_model, lambda k: order[:k], PROMPTS)
    with pytest.raises(BudgetError, match="largest is 0"):
        choose_budget(tiny_model, [], PROMPTS)
    with pytest.raises(BehaviorError, match="0 prompts"):
        choose_budget(tiny_model, order, [])
    for name, value in (("target_fidelity", 1.0), ("target_fidelity", 0.0), ("confidence", 0.5)):
        with pytest.raises(PieFastError, match=f"{name} is {value}"):
            choose_budget(tiny_model, order, PROMPTS, **{name: value})
    with pytest.raises(PieFastError, match="target_fidelity is nan"):
        choose_budget(tiny_model, order, PROMPTS, target_fidelity=float("nan"))


def test_the_command_reports_on_prompts_that_did_not_choose(tmp_path: Path) -> None:
    run = ["demo", "--budget", "auto", "--target-fidelity", "0.5", "--json"]
    done = CliRunner().invoke(app, [*run, "--method", "fap", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    choice, settings = result["budget_choice"], result["settings"]
    assert settings["budget"] == choice["budget"] == len(result["features"])
    assert choice["target_fidelity"] == 0.5
    assert choice["n_prompts"] + result["evaluation"]["n_prompts"] == settings["n_held_out"]
    assert {p["budget"] for p in result["curves"]["fap"]} >= {choice["budget"]}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--budget", "many"], "'many' is not a valid integer, and not 'auto' or 'knee'"),
        (["--budget", "0"], "0 is not valid, must be at least 1"),
        (["--budget", "auto", "--target-fidelity", "1.5"], "target_fidelity is 1.5"),
    ],
)
def test_bad_options(options: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["demo", *options])
    assert done.exit_code != 0
    assert told in " ".join((done.output + str(done.exception)).replace("│", "").split())
