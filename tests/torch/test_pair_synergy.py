"""Pair synergy on the tiny model: exact pairs against single runs, gradient rows against exact."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from pie_fast.attribution import Patcher, gate_effects, pool_effects
from pie_fast.errors import PieFastError
from pie_fast.model import Switches, make_batch
from pie_fast.replacement_model import ReplacementModel
from pie_fast.synergy import SynergyEstimator, model_calls
from torch_prompts import random_prompts

POOL = (1, 20, 49, 60, 75, 100, 130, 143)
SWITCHES = Switches("counterfactual")


def metric(model: ReplacementModel, prompts: list, gates: dict[int, float], rest: str) -> float:
    """Mean logit difference over prompts, each run alone, gates set one by one."""
    total = 0.0
    for prompt in prompts:
        setup = model.prepare(make_batch([prompt], model.device), SWITCHES, prompts)
        pool = model.make_pool(gates)
        row = torch.tensor([[gates[g] for g in sorted(gates)]])
        with torch.no_grad():
            logits = model.run(setup, pool, row, rest=rest).logits[0, 0]
        total += float(logits[prompt.answer] - logits[prompt.foil])
    return total / len(prompts)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_exact_synergy_is_the_definition(tiny_model: ReplacementModel, direction: str) -> None:
    prompts = random_prompts(3)
    matrix = SynergyEstimator(
        tiny_model,
        prompts,
        tiny_model.make_pool(POOL),
        "logit-diff",
        SWITCHES,
        estimator="exact",
        direction=direction,
        batch_size=2,
    ).matrix()
    assert np.array_equal(matrix, matrix.T)
    assert not matrix.diagonal().any()

    def importance(members: tuple[int, ...]) -> float:
        if direction == "noising":
            whole = metric(tiny_model, prompts, dict.fromkeys(members, 1.0), "free")
            return whole - metric(tiny_model, prompts, dict.fromkeys(members, 0.0), "free")
        alone = metric(tiny_model, prompts, dict.fromkeys(members, 1.0), "baseline")
        return alone - metric(tiny_model, prompts, dict.fromkeys(members, 0.0), "baseline")

    for i, j in list(combinations(range(len(POOL)), 2))[::4]:
        f, g = POOL[i], POOL[j]
        literal = importance((f, g)) - importance((f,)) - importance((g,))
        assert matrix[i, j] == pytest.approx(literal, abs=2e-5)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_gradient_differences_are_their_definition(
    tiny_model: ReplacementModel, direction: str
) -> None:
    prompts = random_prompts(3)
    pool = tiny_model.make_pool(POOL)
    matrix = SynergyEstimator(
        tiny_model, prompts, pool, "logit-diff", SWITCHES, direction=direction, batch_size=2
    ).matrix()
    rest, still = ("free", 1.0) if direction == "noising" else ("baseline", 0.0)

    def effects(moved: int | None) -> np.ndarray:
        total = np.zeros(len(POOL))
        for prompt in prompts:
            setup = tiny_model.prepare(make_batch([prompt], tiny_model.device), SWITCHES, prompts)
            gates = torch.full((1, len(POOL)), still)
            if moved is not None:
                gates[0, moved] = 1.0 - still
            found = gate_effects(tiny_model, setup, "logit-diff", pool=pool, gates=gates, rest=rest)
            total += pool_effects(found, setup, pool)[0, 0].double().numpy()
        return total / len(prompts)

    at_rest = effects(None)
    rows = np.array([effects(j) - at_rest for j in range(len(POOL))])
    literal = (rows + rows.T) / 2
    np.fill_diagonal(literal, 0.0)
    assert np.allclose(matrix, literal, atol=2e-5)


def test_rows_do_not_depend_on_how_they_are_asked_for(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(4)
    arguments = (tiny_model, prompts, tiny_model.make_pool(POOL), "logit-diff", SWITCHES)
    one_by_one = SynergyEstimator(*arguments)
    rows = np.concatenate([one_by_one.rows([i]) for i in range(len(POOL))])
    assert np.allclose(one_by_one.symmetric(rows), SynergyEstimator(*arguments).matrix(), atol=1e-6)


def test_patching_nothing_has_no_effect(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(2)
    patcher = Patcher(tiny_model, prompts, tiny_model.make_pool(POOL), "logit-diff", SWITCHES)
    assert not patcher.effects([()]).any()


def test_costs_are_told_before_the_run() -> None:
    assert model_calls("exact", 24) == (1 + 2 * 24 + 276, 0)
    assert model_calls("gradient-difference", 200) == (201, 201)


@pytest.mark.parametrize(("option", "value"), [("estimator", "guess"), ("direction", "sideways")])
def test_unknown_options_are_refused(tiny_model: ReplacementModel, option: str, value: str) -> None:
    with pytest.raises(PieFastError, match=f"{option} is '{value}'"):
        SynergyEstimator(
            tiny_model,
            random_prompts(2),
            tiny_model.make_pool(POOL),
            "logit-diff",
            SWITCHES,
            **{option: value},
        )
