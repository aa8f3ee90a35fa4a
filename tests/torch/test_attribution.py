"""Effects of gates and of sets of features against single runs of the model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pie_fast.attribution import (
    Patcher,
    check_direction,
    gate_effects,
    pool_effects,
    run_metric,
    sets_per_pass,
)
from pie_fast.cost import Cost
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.model import Switches, make_batch
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

SWITCHES = Switches("counterfactual")
POOL = [3, 50, 99, 140]


@pytest.mark.parametrize(
    ("shape", "device", "backward", "want"),
    [
        ((3, 5), "cpu", False, 136),
        ((3, 5), "cpu", True, 68),
        ((3, 5), "meta", False, 1092),
        ((3, 5), "meta", True, 546),
        ((2, 1024), "cpu", False, 1),
        ((3, 1024), "cpu", True, 1),
    ],
)
def test_as_many_sets_as_fit(
    shape: tuple[int, int], device: str, backward: bool, want: int
) -> None:
    setup: Any = SimpleNamespace(batch=SimpleNamespace(tokens=torch.empty(shape, device=device)))
    assert sets_per_pass(setup, backward=backward) == want
    if not backward:
        assert sets_per_pass(setup) == want


def test_directions_have_names() -> None:
    check_direction("noising")
    check_direction("denoising")
    with pytest.raises(PieFastError, match=r"direction is 'up', must be noising or denoising$"):
        check_direction("up")


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_sets_are_patched_one_by_one(tiny_model: ReplacementModel, direction: str) -> None:
    prompts, others = random_prompts(5), random_prompts(3, seed=9)
    switches, sets = Switches("mean"), [(0,), (1, 3), (), (0, 1, 2, 3)]
    pool = tiny_model.make_pool(POOL)
    patcher = Patcher(
        tiny_model,
        prompts,
        pool,
        "logit-diff",
        switches,
        direction=direction,
        batch_size=2,
        mean_of=others,
    )
    assert [len(setup.batch) for _, setup in patcher.setups] == [2, 2, 1]
    noising = direction == "noising"
    moved = 0.0 if noising else 1.0
    gates = torch.full((4, 4), 1 - moved)
    for row, members in enumerate(sets):
        gates[row, list(members)] = moved
    assert torch.equal(patcher.gates(sets), gates)

    want = np.zeros((4, 5))
    for i, prompt in enumerate(prompts):
        batch = make_batch([prompt], tiny_model.device)
        setup = tiny_model.prepare(batch, switches, others)
        rest = "free" if noising else "baseline"
        with torch.no_grad():
            for row in range(4):
                run = tiny_model.run(setup, pool, gates[row][None], rest=rest)
                want[row, i] = run_metric(setup, run, "logit-diff").item()
    np.testing.assert_allclose(patcher.values(sets), want, atol=2e-5)
    effects = patcher.effects(sets)
    sign = 1 if noising else -1
    np.testing.assert_allclose(effects, sign * (want[2] - want), atol=4e-5)
    assert (effects[2] == 0).all() and np.abs(effects[3]).min() > 0


def test_defaults_are_noising_over_the_prompts(tiny_model: ReplacementModel) -> None:
    prompts, pool = random_prompts(3), tiny_model.make_pool(POOL)
    how: tuple[Any, ...] = (tiny_model, prompts, pool, "logit-diff", Switches("mean"))
    plain, told = Patcher(*how), Patcher(*how, direction="noising", mean_of=prompts)
    assert plain.noising and plain.rest == "free" and len(plain.setups) == 1
    np.testing.assert_array_equal(plain.effects([(0,), (2,)]), told.effects([(0,), (2,)]))
    with pytest.raises(PieFastError, match="direction is 'both'"):
        Patcher(*how, direction="both")
    with pytest.raises(BehaviorError, match="unknown metric 'size'"):
        Patcher(tiny_model, prompts, pool, "size", SWITCHES)


def test_first_order_is_of_each_prompt_alone(tiny_model: ReplacementModel) -> None:
    prompts, pool = random_prompts(3), tiny_model.make_pool(POOL)
    patcher = Patcher(tiny_model, prompts, pool, "logit-diff", SWITCHES, batch_size=2)
    for gradient in ("full", "frozen"):
        found = patcher.first_order(gradient)
        assert found.shape == (4, 3)
        for i, prompt in enumerate(prompts):
            batch = make_batch([prompt], tiny_model.device)
            setup = tiny_model.prepare(batch, SWITCHES, prompts)
            effects = gate_effects(tiny_model, setup, "logit-diff", gradient=gradient)
            alone = pool_effects(effects, setup, pool)
            assert alone.shape == (1, 1, 4)
            np.testing.assert_allclose(found[:, i], alone[0, 0].numpy(), atol=2e-5)
    np.testing.assert_array_equal(patcher.first_order(), patcher.first_order("full"))
    assert not np.allclose(patcher.first_order("frozen"), patcher.first_order())


def test_a_gradient_of_kl_needs_a_state_away_from_the_clean_run(
    tiny_model: ReplacementModel,
) -> None:
    prompts, pool = random_prompts(2), tiny_model.make_pool(POOL)
    setup = tiny_model.prepare(make_batch(prompts, tiny_model.device), SWITCHES, prompts)
    with pytest.raises(BehaviorError, match="gradient 0 at the clean run"):
        gate_effects(tiny_model, setup, "kl")
    gates = torch.zeros(3, 4)
    spent = tiny_model.spent
    effects = gate_effects(tiny_model, setup, "kl", pool=pool, gates=gates)
    assert tiny_model.spent - spent == Cost(forward=6, backward=6)
    assert effects.metric.shape == (3, 2) and not effects.metric.requires_grad
    assert (effects.metric < 0).all(), "the metric is the negated divergence"
    assert not any(columns.values.requires_grad for columns in effects.activations)


def test_effects_are_derivatives_by_the_gates(tiny_model: ReplacementModel) -> None:
    """Between two settings of one gate nearby, at a state in the middle."""
    prompts, pool = random_prompts(2), tiny_model.make_pool(POOL)
    setup = tiny_model.prepare(make_batch(prompts, tiny_model.device), SWITCHES, prompts)
    step = 1e-2
    gates = torch.full((1, 4), 0.5)
    for rest in ("free", "baseline"):
        at = gate_effects(tiny_model, setup, "logprob", pool=pool, gates=gates, rest=rest)
        of_pool = pool_effects(at, setup, pool)[0]
        for place in range(4):
            two = gates.repeat(2, 1)
            two[0, place] += step
            two[1, place] -= step
            with torch.no_grad():
                run = tiny_model.run(setup, pool, two, rest=rest)
                high, low = run_metric(setup, run, "logprob")
            slope = (high - low) / (2 * step)
            torch.testing.assert_close(of_pool[:, place], slope, atol=2e-3, rtol=5e-2)
