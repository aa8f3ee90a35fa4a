"""Many gate settings that share a prefix: each as if it had run alone and whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from pie_fast.attribution import run_metric
from pie_fast.errors import PieFastError
from pie_fast.model import Pool, Setup, Switches, make_batch, sweep
from pie_fast.model.sweep import first_differing
from pie_fast.replacement_model import ReplacementModel, load_model
from torch_prompts import random_prompts

PROMPTS = random_prompts(3)
#: few of each layer
POOL = [1, 5, 9, 20, 48 + 2, 48 + 7, 48 + 30, 96 + 4, 96 + 11, 96 + 40]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(
    request: pytest.FixtureRequest, tiny_model: ReplacementModel, tiny_folders: tuple[Path, Path]
) -> ReplacementModel:
    if request.param == "gpt2":
        return tiny_model
    tokenizer = tiny_model.host.bridge.tokenizer
    return load_model(tiny.random_llama(), str(tiny_folders[1]), tokenizer=tokenizer, device="cpu")


def rows_of(n: int, layers: list[int], pool: Pool) -> torch.Tensor:
    """Row 0 at random, each other one like it below its layer and at random from there on."""
    rng = np.random.default_rng(n)
    gates = rng.choice([0.0, 0.0, 0.5, 1.0], (1 + len(layers), len(pool)))
    for row, layer in zip(gates[1:], layers, strict=True):
        kept = pool.slots[layer].start if layer < len(pool.slots) else len(pool)
        row[:kept] = gates[0, :kept]
    return torch.from_numpy(gates).float()


@pytest.mark.parametrize(
    "switches",
    [
        Switches("counterfactual"),
        Switches("zero", error="drop"),
        Switches("counterfactual", attention="freeze", activations="freeze"),
    ],
    ids=lambda s: f"{s.baseline}-{s.error}-{s.attention}",
)
@pytest.mark.parametrize("rest", ["free", "baseline"])
@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_each_row_is_what_it_is_alone(
    model: ReplacementModel, switches: Switches, rest: str, at_once: int
) -> None:
    pool, setup = model.make_pool(POOL), model.prepare(make_batch(PROMPTS, model.device), switches)
    gates = rows_of(at_once, [0, 1, 1, 2, 2, 2, 3], pool)
    alone = [metric(setup, model.run(setup, pool, row[None], rest=rest)) for row in gates]
    seen: list[int] = []
    for rows, run in sweep(model, setup, pool, gates, rest=rest, at_once=at_once):
        assert len(rows) <= at_once
        found = metric(setup, run)
        for row, values in zip(rows, found, strict=True):
            torch.testing.assert_close(values, alone[row][0], rtol=1e-4, atol=1e-5)
        seen += rows
    assert sorted(seen) == list(range(len(gates)))
    assert len({round(float(a[0, 0]), 4) for a in alone}) > 2, "the rows differ"


@pytest.mark.parametrize("kept", [[], [0, 1, 2, 3], [9]])
@pytest.mark.parametrize("rest", ["free", "baseline"])
def test_growing_and_ablating_by_one(
    tiny_model: ReplacementModel, rest: str, kept: list[int]
) -> None:
    pool = tiny_model.make_pool(POOL)
    setup = tiny_model.prepare(make_batch(PROMPTS, tiny_model.device), Switches())
    base = torch.zeros(1, len(POOL))
    base[0, kept] = 1.0
    gates = torch.cat([base, (base - torch.eye(len(POOL))).abs()])
    layers = first_differing(pool, gates)
    assert layers.tolist() == [3, *[0] * 4, *[1] * 3, *[2] * 3]
    for rows, run in sweep(tiny_model, setup, pool, gates, rest=rest, at_once=4):
        for row, values in zip(rows, metric(setup, run), strict=True):
            one = metric(setup, tiny_model.run(setup, pool, gates[row : row + 1], rest=rest))
            torch.testing.assert_close(values, one[0], rtol=1e-4, atol=1e-5)


def test_a_gate_of_a_frozen_feature_that_is_nowhere_active_moves_nothing(
    tiny_model: ReplacementModel,
) -> None:
    setup = tiny_model.prepare(
        make_batch(PROMPTS[:1], tiny_model.device), Switches("zero", activations="freeze")
    )
    silent = [g for g in range(48) if g not in setup.clean[1].ids.tolist()]
    assert silent
    whole = metric(setup, tiny_model.run(setup))
    for feature in silent:
        pool = tiny_model.make_pool([48 + feature])
        # Only a run with a gradient rebuilds what is below the first moved feature.
        run = tiny_model.run(setup, pool, torch.zeros(1, 1), gradient="full")
        torch.testing.assert_close(metric(setup, run).detach(), whole, rtol=1e-4, atol=1e-5)


def test_a_prefix_is_not_for_gradients(tiny_model: ReplacementModel) -> None:
    pool = tiny_model.make_pool(POOL)
    setup = tiny_model.prepare(make_batch(PROMPTS, tiny_model.device), Switches())
    two = torch.zeros(2, len(POOL))
    kept = tiny_model.run(setup, pool, two[:1], rest="baseline", keep=[1]).prefixes
    assert list(kept) == [1]
    with pytest.raises(PieFastError, match="without gradient"):
        tiny_model.run(setup, pool, two, rest="baseline", gradient="full", prefix=kept[1])
    with pytest.raises(PieFastError, match="one row of gates only"):
        tiny_model.run(setup, pool, two, rest="baseline", keep=[1])


def metric(setup: Setup, run: object) -> torch.Tensor:
    return run_metric(setup, run, "logit-diff")  # type: ignore[arg-type]
