"""Several behaviours under one budget: joint gradients, exact effects, fronts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pie_fast
from pie_fast.behaviors import Behavior
from pie_fast.conditional import grow
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.evaluate import measure
from pie_fast.ground import Ground
from pie_fast.model import Switches
from pie_fast.replacement_model import ReplacementModel
from pie_fast.several import (
    SOFTNESS,
    SharedGround,
    interleaved,
    non_dominated,
    weight_grid,
)
from pie_fast.shared import discover_shared
from pie_fast.shared_stages import effect_shares
from running import written
from torch_prompts import random_prompts

#: as many of one as of the other would hide a mean taken over all prompts
FIRST, SECOND = random_prompts(5, seed=3), random_prompts(3, seed=4)


@pytest.fixture(scope="module")
def parts(tiny_model: ReplacementModel) -> list[Ground]:
    return [
        Ground(tiny_model, FIRST, "logit-diff", Switches("counterfactual")),
        Ground(tiny_model, SECOND, "logprob", Switches("zero")),
    ]


def behaviors() -> list[Behavior]:
    return [
        Behavior("first", tuple(FIRST), tuple(random_prompts(4, seed=5))),
        Behavior("second", tuple(SECOND), tuple(random_prompts(6, seed=6)), "logprob"),
    ]


def kl_of(part: Ground, ids: np.ndarray) -> float:
    """Mean KL of a circuit on one behaviour's prompts, each evaluated apart."""
    found = measure(
        part.model,
        [ids.tolist()],
        part.prompts,
        metric=part.metric,
        switches=part.switches,
        mean_of=part.mean_of,
        completeness=False,
    )
    return float(found[0].kl.mean())


def slopes(parts: list[Ground], shared: SharedGround, ids: np.ndarray) -> np.ndarray:
    """d (minus mean KL) / d gate of every shared candidate, one row a behaviour."""
    out = np.zeros((len(parts), len(shared)))
    for row, part in zip(out, parts, strict=True):
        union = shared.pool.global_ids.tolist()
        alone = Ground(part.model, part.prompts, "kl", part.switches, candidates=union)
        row[:] = alone.marginals(alone.gates(alone.positions(ids))).mean(1)
    return out


def test_weighted_scores_are_sums_of_the_behaviours_own(parts: list[Ground]) -> None:
    shared = SharedGround(parts, [1, 3])
    assert len(shared) > max(map(len, parts)), "there are features of one behaviour alone"
    grown = grow(shared, 8, batch=4)
    for at in (0, 4):
        wanted = np.array([0.25, 0.75]) @ slopes(parts, shared, grown.ids[:at])
        place = shared.positions(grown.ids[at : at + 4])
        np.testing.assert_allclose(grown.scores[at : at + 4], wanted[place], rtol=1e-4)
        wanted[shared.positions(grown.ids[:at])] = -np.inf
        assert set(place) == set(np.argsort(-wanted)[:4])


def test_all_weight_on_one_behaviour_is_its_own_circuit(parts: list[Ground]) -> None:
    shared = SharedGround(parts)
    for number, part in enumerate(parts):
        weights = np.eye(2)[number]
        own = grow(part.afresh(), 10, batch=5)
        assert grow(shared.towards(weights), 10, batch=5).ids.tolist() == own.ids.tolist()


def test_worst_follows_the_soft_maximum(parts: list[Ground]) -> None:
    shared = SharedGround(parts, worst=True)
    grown = grow(shared, 6, batch=3)
    for at in (0, 3):
        kl = np.array([kl_of(part, grown.ids[:at]) for part in parts])
        emphasis = np.exp((kl - kl.max()) / SOFTNESS)
        wanted = emphasis / emphasis.sum() @ slopes(parts, shared, grown.ids[:at])
        place = shared.positions(grown.ids[at : at + 3])
        np.testing.assert_allclose(grown.scores[at : at + 3], wanted[place], rtol=2e-3, atol=1e-4)


def test_worst_has_the_smaller_worst(parts: list[Ground]) -> None:
    shared = SharedGround(parts)
    largest = []
    for ground in (shared.towards(worst=True), shared.towards([1, 20])):
        grown = grow(ground, 20)
        largest.append(max(kl_of(part, grown.ids) for part in parts))
    assert largest[0] < largest[1]


def test_removal_effects_are_those_of_circuits_without(parts: list[Ground]) -> None:
    shared = SharedGround(parts)
    ids = grow(shared, 9).ids
    found = shared.removal_effects(ids)
    for number, part in enumerate(parts):
        whole = kl_of(part, ids)
        for row in range(len(ids)):
            without = kl_of(part, np.delete(ids, row))
            assert found[row, number] == pytest.approx(without - whole, abs=1e-4)
    shares = effect_shares(found)
    assert (shares >= 0).all() and (shares.sum(1) <= 1 + 1e-9).all()
    np.testing.assert_allclose(effect_shares(np.array([[3.0, 1.0], [2, -1], [-1, -1]])), [
        [0.75, 0.25], [1, 0], [0, 0]
    ])  # fmt: skip


@given(st.integers(1, 5), st.integers(1, 6))
def test_a_grid_holds_every_weight_once(n: int, steps: int) -> None:
    grid = weight_grid(n, steps)
    assert grid.shape[1] == n
    assert len(np.unique(grid, axis=0)) == len(grid)
    np.testing.assert_allclose(grid.sum(1), 1)
    np.testing.assert_allclose(grid * steps, np.round(grid * steps), atol=1e-9)
    assert all((grid == one).all(1).any() for one in np.eye(n))
    for _ in range(3):
        cut = np.random.default_rng(n).multinomial(steps, np.full(n, 1 / n)) / steps
        assert np.isclose(grid, cut).all(1).any()


def test_the_usual_grids() -> None:
    assert [len(weight_grid(n)) for n in (2, 3, 4, 5, 30)] == [9, 21, 20, 15, 30]
    with pytest.raises(PieFastError, match="n_steps is 0"):
        weight_grid(2, 0)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 3)),
                  elements=st.integers(0, 3).map(float)))  # fmt: skip
def test_non_dominated_rows(losses: np.ndarray) -> None:
    wanted = [
        not any((other <= row).all() and (other < row).any() for other in losses) for row in losses
    ]
    assert non_dominated(losses).tolist() == wanted
    assert any(wanted)


def test_orders_taken_in_turns() -> None:
    orders = {"a": [1, 2, 3], "b": [2, 9], "c": []}
    assert interleaved(orders, 4) == [1, 2, 9, 3]
    assert interleaved(orders, 2) == [1, 2]
    assert interleaved({}, 3) == []


def test_a_shared_run(tiny_model: ReplacementModel, tmp_path: Path) -> None:
    both = behaviors()
    result = discover_shared(
        tiny_model, both, 12, objective="pareto", front_steps=2, out=tmp_path / "run"
    )
    spent = {"timings": result["timings"]}
    assert written(tmp_path / "run" / "result.json") | spent == result
    ids = np.array([row["layer"] * 48 + row["index"] for row in result["features"]])
    assert len(set(ids.tolist())) == 12
    for row, behavior in zip(result["behaviors"], both, strict=True):
        switches = Switches("counterfactual")
        own_ground = Ground(tiny_model, behavior.selection, behavior.metric, switches)
        own = grow(own_ground, 12).ids
        held_out = Ground(tiny_model, behavior.held_out, behavior.metric, switches)
        assert row["n_prompts"] == len(behavior.held_out)
        assert row["mean_kl"] == pytest.approx(kl_of(held_out, ids), abs=1e-5)
        assert row["own"]["mean_kl"] == pytest.approx(kl_of(held_out, own), abs=1e-5)
        assert row["price"] == row["mean_kl"] - row["own"]["mean_kl"]
        assert row["in_own"] == len(set(own) & set(ids))
        for feature, found in zip(ids, result["features"], strict=True):
            assert (behavior.name in found["own"]) == (feature in own)
            assert (behavior.name in found["serves"]) == (found["shares"][behavior.name] >= 0.1)
    assert any(len(row["serves"]) == 2 for row in result["features"])
    front = result["front"]
    assert [p["weights"] and list(p["weights"].values()) for p in front] == [
        [0, 1], [0.5, 0.5], [1, 0], None
    ]  # fmt: skip
    assert [layer * 48 + index for layer, index in front[1]["features"]] == ids.tolist()
    kl = np.array([list(p["mean_kl"].values()) for p in front])
    assert [p["on_front"] for p in front] == non_dominated(kl).tolist()
    told = [row["mean_kl"] for row in result["behaviors"]]
    np.testing.assert_allclose(kl[1], told, rtol=1e-6)


def test_bad_input(tiny_model: ReplacementModel, parts: list[Ground]) -> None:
    both = behaviors()
    with pytest.raises(BehaviorError, match="there are 1 behaviours"):
        discover_shared(tiny_model, both[:1], 3)
    with pytest.raises(BehaviorError, match="'first' is given twice"):
        discover_shared(tiny_model, [both[0], both[0]], 3)
    with pytest.raises(BudgetError, match="budget 0"):
        discover_shared(tiny_model, both, 0)
    with pytest.raises(BudgetError, match=r"budget 999 exceeds the \d+ active features"):
        discover_shared(tiny_model, both, 999)
    with pytest.raises(PieFastError, match="objective 'best'"):
        discover_shared(tiny_model, both, 3, objective="best")
    for weights in ([1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(PieFastError, match="for each of 2 behaviours"):
            discover_shared(tiny_model, both, 3, weights=weights)
    with pytest.raises(PieFastError, match="at least 1 ground"):
        SharedGround([])
    assert pie_fast.discover_shared is discover_shared
