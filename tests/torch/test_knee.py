"""The knee: where it is known, where there is none, and on a circuit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pie_fast.cli import app
from pie_fast.conditional import conditional_gradient
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.evaluate import measure
from pie_fast.knee import LEAST_DISTANCE, budgets, choose_knee, knee_of, knees
from pie_fast.model import Switches
from pie_fast.plan import Plan
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

KS = list(range(0, 101, 5))


def bent(at: int, steep: float = 0.2, flat: float = 0.01) -> np.ndarray:
    """KL that falls at one rate up to `at` and at a smaller one from there on: `[len(KS)]`."""
    k = np.asarray(KS, dtype=float)
    log_kl = -steep * np.minimum(k, at) - flat * np.maximum(k - at, 0)
    return np.exp(log_kl)


def over_prompts(kl: np.ndarray, spread: float, n: int = 40) -> np.ndarray:
    factors = np.random.default_rng(0).lognormal(0, spread, n)
    return kl[:, None] * factors


@given(st.sampled_from(KS[1:-1]), st.floats(0.1, 0.25), st.floats(0, 0.05), st.floats(1, 100))
def test_a_bend_is_found(at: int, steep: float, flat: float, scale: float) -> None:
    kl = scale * bent(at, steep, flat)
    place, distance = knees(KS, np.stack([kl, 3 * kl]))
    assert [KS[p] for p in place] == [at, at]
    height = steep * at + flat * (100 - at)
    assert distance[0] == pytest.approx(steep * at / height - at / 100, abs=1e-6)
    assert distance[1] == pytest.approx(distance[0]), "the unit of KL does not matter"


def test_interval_and_share() -> None:
    found = knee_of(KS, over_prompts(bent(30), 0.5))
    assert (found.budget, found.interval, found.share) == (30, (30, 30), 1.0)
    assert found.n_prompts == 40
    assert [p.budget for p in found.tried] == KS
    # Half of the prompts bend early, half late: where the mean bends is not sure.
    unsure = np.concatenate([over_prompts(bent(20), 2, 10), over_prompts(bent(50), 2, 10)], 1)
    wide = knee_of(KS, unsure)
    low, high = wide.interval
    assert low < high and low <= wide.budget <= high
    narrow = knee_of(KS, unsure, confidence=0.6)
    assert low <= narrow.interval[0] and narrow.interval[1] <= high
    assert knee_of(KS, unsure, seed=0) == wide


@pytest.mark.parametrize(
    "kl",
    [
        np.exp(-0.1 * np.asarray(KS)),  # a line in log KL
        np.full(len(KS), 0.3),  # flat
        np.exp(0.01 * np.asarray(KS)),  # rising
        np.exp(-0.001 * np.asarray(KS) ** 2.0),  # concave: it falls faster and faster
    ],
    ids=["line", "flat", "rising", "concave"],
)
def test_no_knee(kl: np.ndarray) -> None:
    with pytest.raises(BudgetError, match="from K=0 to K=100 has no knee: it lies at most 0"):
        knee_of(KS, over_prompts(kl, 0.1))


def test_a_knee_that_is_not_sure() -> None:
    # Most prompts bend, some fall faster and faster: it depends on how many of these are drawn.
    rows = np.stack([bent(50, 0.05, 0.025)] * 8 + [bent(50, 0.03, 0.05)] * 3, 1)
    assert knees(KS, rows.mean(1)[None])[1][0] > LEAST_DISTANCE
    with pytest.raises(BudgetError, match=r"may have no knee: on \d+% of the resampled"):
        knee_of(KS, rows)


def test_two_points_have_no_knee() -> None:
    with pytest.raises(BudgetError, match="no knee"):
        knee_of([0, 5], np.array([[1.0, 2.0], [0.1, 0.1]]))


@given(st.integers(1, 3000))
def test_budgets_reach_the_largest_in_few_steps(largest: int) -> None:
    found = budgets(largest)
    steps = np.diff(found)
    assert found[0] == 0 and found[-1] == largest
    assert (steps > 0).all()
    assert all(k % 5 == 0 for k in found[:-1]), "whole steps of a growth"
    assert (steps <= np.maximum(5, np.asarray(found[:-1]) / 10)).all()
    assert len(found) < 70


def test_on_a_circuit(tiny_model: ReplacementModel) -> None:
    prompts, switches = random_prompts(8), Switches("counterfactual")
    ids = conditional_gradient(tiny_model, prompts, None, 90, switches=switches).ids
    told: list[tuple[int, int]] = []
    found = choose_knee(
        tiny_model, ids, prompts, switches=switches, progress=lambda *at: told.append(at)
    )
    points = {point.budget: point for point in found.tried}
    assert found.budget in points and found.interval[0] <= found.budget <= found.interval[1]
    assert 0 < found.budget < max(points)
    assert len(told) == len(points)
    measured = measure(
        tiny_model,
        [ids[:k].tolist() for k in points],
        prompts,
        metric="logit-diff",
        switches=switches,
        completeness=False,
    )
    kl = np.stack([one.kl for one in measured])
    assert [p.mean_kl for p in found.tried] == pytest.approx(kl.mean(1).tolist(), abs=1e-5)
    by_function = choose_knee(tiny_model, lambda k: ids[:k], prompts, len(ids), switches=switches)
    assert by_function == found


def test_bad_input(tiny_model: ReplacementModel) -> None:
    with pytest.raises(BehaviorError, match="0 prompts"):
        choose_knee(tiny_model, [1], [])
    with pytest.raises(BudgetError, match="largest is None"):
        choose_knee(tiny_model, lambda k: [1], random_prompts(2))
    with pytest.raises(PieFastError, match=r"confidence is 0\.5"):
        choose_knee(tiny_model, [1], random_prompts(2), confidence=0.5)
    with pytest.raises(BudgetError, match="budget 5 is given"):
        Plan(5, knee=True)


def test_the_command(tmp_path: Path) -> None:
    run = ["demo", "--behavior", "pronoun", "--budget", "knee", "--stability", "0"]
    done = CliRunner().invoke(app, [*run, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    choice, settings = result["budget_choice"], result["settings"]
    assert settings["knee"] and settings["budget"] == choice["budget"] == len(result["features"])
    assert choice["interval"][0] <= choice["budget"] <= choice["interval"][1]
    assert choice["n_prompts"] + result["evaluation"]["n_prompts"] == settings["n_held_out"]
    assert f"budget {choice['budget']}: the knee of the curve" in done.output
