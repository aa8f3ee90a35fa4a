"""Mask optimisation: its gradient, its budget, and that it finds what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods import SELECTORS, select_on
from pie_fast.methods.masks import STARTS, relaxed_top_k
from pie_fast.model import Switches
from pie_fast.planted import Motifs, plant
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

SWITCHES = Switches("counterfactual")
PROMPTS = random_prompts(6)


def ground(model: ReplacementModel, **options: object) -> Ground:
    return Ground(model, PROMPTS, "logit-diff", SWITCHES, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0.5, 3, 11.7, 19])
@pytest.mark.parametrize("heat", [1.0, 0.1, 0.001])
def test_gates_sum_to_the_budget_and_keep_the_order(k: float, heat: float) -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=20))
    gates = relaxed_top_k(logits, k, heat)
    assert float(gates.sum()) == pytest.approx(k, abs=1e-6)
    assert (gates >= 0).all() and (gates <= 1).all()
    assert (gates[logits.argsort()].diff() >= 0).all()
    if heat == 0.001 and k == 3:
        assert set(gates.topk(3).indices.tolist()) == set(logits.topk(3).indices.tolist())
        assert float(gates.topk(3).values.min()) > 0.999


def test_gates_are_all_open_where_the_budget_is_everything() -> None:
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    gates = relaxed_top_k(logits, 7.0, 1.0)
    gates.sum().backward()
    assert gates.tolist() == [1.0] * 4
    assert logits.grad is not None and logits.grad.tolist() == [0.0] * 4


def test_the_gradient_of_the_gates_is_that_of_differences() -> None:
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=12)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: relaxed_top_k(x, 4.5, 0.7), (logits,), eps=1e-5)


def test_the_gradient_by_a_gate_is_that_of_differences(tiny_model: ReplacementModel) -> None:
    """At gates between 0 and 1, where masks are learnt and no other selector stands."""
    here = ground(tiny_model)
    gates = torch.from_numpy(np.random.default_rng(2).uniform(0.2, 0.8, (1, len(here)))).float()
    found = here.mean(here.marginals(gates))
    step = 2.0**-6
    for place in range(0, len(here), 9):
        both = gates.repeat(2, 1)
        both[0, place] += step
        both[1, place] -= step
        up, down = here.mean(here.values(both))
        assert found[place] == pytest.approx((up - down) / (2 * step), abs=2e-3)


def test_it_beats_the_conditional_gradient_where_there_is_room(
    tiny_model: ReplacementModel,
) -> None:
    here = ground(tiny_model)
    ids = [select_on(here, name, 12).ids for name in ("masks", "conditional-gradient", "fap")]
    learnt, grown, fap = -here.mean(here.values(here.gates(*map(here.positions, ids))))
    assert learnt <= grown * 1.02 and learnt < fap


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_the_planted_circuit(tmp_path: Path, seed: int) -> None:
    planted = plant(tmp_path, seed=seed)
    here = Ground(planted.load(), planted.behavior.selection, "logit-diff", SWITCHES)
    k = len(planted.truth.circuit)
    assert set(select_on(here, "masks", k).ids.tolist()) == planted.truth.circuit


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_of_a_duplicate_only_where_nothing_useful_is_left(tmp_path: Path, seed: int) -> None:
    assert SELECTORS["masks"].redundancy_aware
    planted = plant(tmp_path, Motifs(2, 1, 2, 1, 1, 2, 0), seed=seed)
    here = Ground(planted.load(), planted.behavior.selection, "logit-diff", SWITCHES)
    for k in (2, 4, 6, len(planted.truth.circuit)):
        found = set(select_on(here, "masks", k).ids.tolist())
        for original, copy in planted.truth.motifs["duplicate"]:
            assert not {original, copy} <= found, k


def test_the_seed_decides_everything(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model)
    options = {"steps": 20, "prompts": 2, "restarts": 2}
    once = select_on(here.afresh(seed=5), "masks", 8, **options)
    again = select_on(here.afresh(seed=5), "masks", 8, **options)
    assert once.ids.tolist() == again.ids.tolist()
    assert once.scores.tolist() == again.scores.tolist()
    other = select_on(here.afresh(seed=6), "masks", 8, **options)
    assert once.scores.tolist() != other.scores.tolist()


def test_restarts_keep_the_best_hard_circuit(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model)

    def value(restarts: int) -> float:
        ids = select_on(here, "masks", 6, steps=15, prompts=2, restarts=restarts).ids
        return float(here.mean(here.values(here.gates(here.positions(ids))))[0])

    assert value(4) >= value(2) >= value(1)


def test_what_it_costs(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model)
    whole = select_on(here, "masks", 5, steps=4, prompts=0)
    assert whole.cost == {"forward": 4.0, "backward": 4.0}
    # Minibatches are prepared once more, the prompts and their counterfactuals; then 2 of 6 a step.
    small = select_on(here, "masks", 5, steps=6, prompts=2)
    assert small.cost == {"forward": 4.0, "backward": 2.0}


def test_prompts_of_no_weight_do_not_count(tiny_model: ReplacementModel) -> None:
    few = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    here = ground(tiny_model, weights=few)
    alone = Ground(
        tiny_model,
        [p for p, w in zip(PROMPTS, few, strict=True) if w],
        "logit-diff",
        SWITCHES,
        candidates=here.pool.global_ids,
    )
    found, expected = (select_on(g, "masks", 6, steps=30, prompts=0) for g in (here, alone))
    assert found.ids.tolist() == expected.ids.tolist()
    minibatches = select_on(here, "masks", 6, steps=6, prompts=2)
    assert len(minibatches.ids) == 6


@pytest.mark.parametrize("start", STARTS)
def test_every_start(tiny_model: ReplacementModel, start: str) -> None:
    here = ground(tiny_model)
    for k in (0, 1, len(here)):
        found = select_on(here, "masks", k, steps=3, start=start)
        assert len(set(found.ids.tolist())) == k
    # With next to no steps a start is what comes out.
    if start != "empty":
        source = {"fap": "fap", "grown": "conditional-gradient"}[start]
        found = select_on(here, "masks", 10, steps=1, rate=1e-6, start=start)
        assert set(found.ids.tolist()) == set(select_on(here, source, 10).ids.tolist())


def test_bad_input(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model)
    with pytest.raises(PieFastError, match="start is 'full', must be one of empty, fap, grown"):
        select_on(here, "masks", 2, start="full")
    for name, value in (("steps", 0), ("restarts", 0), ("prompts", -1), ("slack", 0.5)):
        with pytest.raises(PieFastError, match=f"{name} is {value}, must be at least"):
            select_on(here, "masks", 2, **{name: value})
    with pytest.raises(PieFastError, match="rate is 0, must be above 0"):
        select_on(here, "masks", 2, rate=0)
