"""Conditional gradient: its scores are derivatives at the circuit, its picks those of greedy KL."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pie_fast.attribution import run_metric
from pie_fast.conditional import conditional_gradient, grow
from pie_fast.cost import Cost
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.ground import Ground
from pie_fast.model import Switches, make_batch
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

PROMPTS = random_prompts(4)
SWITCHES = Switches("counterfactual")


def passes(n: int, runs: int = 0) -> Cost:
    """Forward and backward passes, and forward runs besides."""
    return Cost(n + runs, n).times(len(PROMPTS))


def active(model: ReplacementModel) -> list[int]:
    return model.attribute(PROMPTS).active.tolist()


def minus_kl(model: ReplacementModel, gates: dict[int, float]) -> float:
    """Mean over prompts, each run alone: what the scores are derivatives of."""
    pool, total = model.make_pool(gates), 0.0
    row = torch.tensor([[gates[g] for g in sorted(gates)]])
    for prompt in PROMPTS:
        setup = model.prepare(make_batch([prompt], model.device), SWITCHES)
        with torch.no_grad():
            run = model.run(setup, pool, row, rest="baseline")
            total += float(run_metric(setup, run, "kl")[0, 0])
    return total / len(PROMPTS)


def test_the_first_step_is_the_gradient_at_the_empty_circuit(tiny_model: ReplacementModel) -> None:
    candidates = active(tiny_model)
    found = conditional_gradient(
        tiny_model, PROMPTS, candidates, len(candidates), batch=len(candidates)
    )
    assert found.cost == passes(1)
    assert sorted(found.ids.tolist()) == candidates
    assert (np.diff(found.scores) <= 0).all()
    empty = minus_kl(tiny_model, {candidates[0]: 0.0})
    step = 2.0**-7
    for place in range(0, len(candidates), 9):
        moved = minus_kl(tiny_model, {int(found.ids[place]): step})
        slope = (moved - empty) / step
        assert found.scores[place] == pytest.approx(slope, abs=0.02 + 0.05 * abs(slope))


def test_later_steps_are_gradients_at_the_circuit_so_far(tiny_model: ReplacementModel) -> None:
    found = conditional_gradient(tiny_model, PROMPTS, active(tiny_model), 9, batch=3)
    kept = dict.fromkeys(found.ids[:6].tolist(), 1.0)
    here, step = minus_kl(tiny_model, kept), 2.0**-7
    for place in (6, 7, 8):
        slope = (minus_kl(tiny_model, {**kept, int(found.ids[place]): step}) - here) / step
        assert found.scores[place] == pytest.approx(slope, abs=0.02 + 0.05 * abs(slope))


def test_one_at_a_time_finds_nearly_what_exact_greedy_finds(tiny_model: ReplacementModel) -> None:
    candidates = active(tiny_model)[::10]
    kept: dict[int, float] = {}
    for _ in range(5):
        rest = [c for c in candidates if c not in kept]
        kept[max(rest, key=lambda c: minus_kl(tiny_model, {**kept, c: 1.0}))] = 1.0
    found = conditional_gradient(tiny_model, PROMPTS, candidates, 5, batch=1)
    assert found.cost == passes(5)
    assert len(set(found.ids.tolist()) & set(kept)) >= 4
    exact = minus_kl(tiny_model, kept)
    empty = minus_kl(tiny_model, {candidates[0]: 0.0})
    gained = minus_kl(tiny_model, dict.fromkeys(found.ids.tolist(), 1.0)) - empty
    assert gained >= 0.9 * (exact - empty) > 0


def test_it_beats_attribution_at_the_full_model(tiny_model: ReplacementModel) -> None:
    candidates = active(tiny_model)
    effects = tiny_model.attribute(PROMPTS).per_prompt(np.asarray(candidates), len(PROMPTS))
    best = np.asarray(candidates)[np.argsort(-np.abs(effects).mean(1))]
    found = conditional_gradient(tiny_model, PROMPTS, candidates, 20)
    ours, theirs = (
        minus_kl(tiny_model, dict.fromkeys(ids[:20].tolist(), 1.0)) for ids in (found.ids, best)
    )
    assert ours > theirs


def test_order_is_stable_and_a_prefix_is_the_smaller_selection(
    tiny_model: ReplacementModel,
) -> None:
    candidates = active(tiny_model)
    whole = conditional_gradient(tiny_model, PROMPTS, candidates, 12, batch=4)
    again = conditional_gradient(tiny_model, PROMPTS, candidates[::-1] * 2, 12, batch=4)
    assert whole.ids.tolist() == again.ids.tolist()
    assert whole.scores.tolist() == again.scores.tolist()
    assert whole.cost == passes(3)
    for k in (0, 4, 8, 10):
        part = conditional_gradient(tiny_model, PROMPTS, candidates, k, batch=4)
        assert part.ids.tolist() == whole.ids[:k].tolist()
        assert part.cost == passes(-(-k // 4))
    in_batches = conditional_gradient(tiny_model, PROMPTS, candidates, 12, batch=4, batch_size=3)
    assert in_batches.ids.tolist() == whole.ids.tolist()


def test_growth_goes_on_where_it_stopped(tiny_model: ReplacementModel) -> None:
    candidates = active(tiny_model)
    whole = conditional_gradient(tiny_model, PROMPTS, candidates, 12, batch=4)
    first = conditional_gradient(tiny_model, PROMPTS, candidates, 8, batch=4)
    rest = conditional_gradient(tiny_model, PROMPTS, candidates, 4, batch=4, start=first.ids)
    joined = first.then(rest)
    assert joined.ids.tolist() == whole.ids.tolist()
    assert joined.scores.tolist() == whole.scores.tolist()
    assert joined.cost == whole.cost
    with pytest.raises(BudgetError, match=f"outside 0 to {len(candidates) - 8}"):
        conditional_gradient(tiny_model, PROMPTS, candidates, len(candidates), start=first.ids)
    with pytest.raises(PieFastError, match="start holds feature 143, which is not a candidate"):
        conditional_gradient(tiny_model, PROMPTS, [1, 2], 1, start=[143])


def test_progress_is_told(tiny_model: ReplacementModel) -> None:
    told: list[tuple[int, int]] = []
    conditional_gradient(
        tiny_model,
        PROMPTS,
        active(tiny_model),
        7,
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(5, 7), (7, 7)]


def test_bad_input(tiny_model: ReplacementModel) -> None:
    with pytest.raises(BudgetError, match="budget 3 is outside 0 to 2"):
        conditional_gradient(tiny_model, PROMPTS, [1, 2, 2], 3)
    with pytest.raises(BudgetError, match="budget -1 is outside 0 to 2"):
        conditional_gradient(tiny_model, PROMPTS, [1, 2], -1)
    with pytest.raises(PieFastError, match="batch is 0"):
        conditional_gradient(tiny_model, PROMPTS, [1, 2], 1, batch=0)
    with pytest.raises(BehaviorError, match="0 prompts"):
        conditional_gradient(tiny_model, [], [1, 2], 1)


def test_a_share_makes_later_steps_larger(tiny_model: ReplacementModel) -> None:
    fixed = conditional_gradient(tiny_model, PROMPTS, None, 24, batch=2)
    grown = conditional_gradient(tiny_model, PROMPTS, None, 24, batch=2, share=0.5)
    # 2, 4, 6, 9, 13, 19, 24 after passes 1 to 7
    assert (fixed.cost, grown.cost) == (passes(12), passes(7))
    assert grown.ids[:4].tolist() == fixed.ids[:4].tolist()


def test_a_shortlist_enters_by_its_exact_gains(tiny_model: ReplacementModel) -> None:
    candidates = active(tiny_model)
    plain = conditional_gradient(tiny_model, PROMPTS, candidates, 6, batch=6)
    found = conditional_gradient(tiny_model, PROMPTS, candidates, 2, batch=2, shortlist=6)
    empty = minus_kl(tiny_model, {candidates[0]: 0.0})
    gains = {g: minus_kl(tiny_model, {g: 1.0}) - empty for g in plain.ids.tolist()}
    best = sorted(gains, key=lambda g: (-gains[g], g))[:2]
    assert found.ids.tolist() == best
    assert found.scores == pytest.approx([gains[g] for g in best], abs=1e-5)
    assert found.cost == passes(1, runs=7)


def test_an_anchor_of_1_ranks_what_does_good_by_its_effect_at_the_model(
    tiny_model: ReplacementModel,
) -> None:
    ground = Ground(tiny_model, PROMPTS, "kl", SWITCHES)
    marginal = ground.mean(ground.marginals(ground.gates(())))
    effect = ground.mean(np.abs(ground.effects()))
    good = np.flatnonzero(marginal > 0)
    order = good[np.argsort(-effect[good], kind="stable")][:5]
    found = grow(ground, 5, batch=5, anchor=1.0)
    assert found.ids.tolist() == ground.pool.global_ids[order].tolist()
    whole = grow(ground, len(ground), batch=len(ground), anchor=0.5)
    assert sorted(whole.ids.tolist()) == ground.pool.global_ids.tolist()


def test_an_anchor_of_0_changes_nothing(tiny_model: ReplacementModel) -> None:
    plain = conditional_gradient(tiny_model, PROMPTS, None, 9, batch=3)
    found = conditional_gradient(tiny_model, PROMPTS, None, 9, batch=3, anchor=0.0)
    assert found.ids.tolist() == plain.ids.tolist() and found.cost == plain.cost == passes(3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": -0.1}, "share is -0.1"),
        ({"share": float("nan")}, "share is nan"),
        ({"shortlist": -1}, "shortlist is -1"),
        ({"anchor": 1.5}, "anchor is 1.5"),
    ],
)
def test_options_out_of_range_are_refused(
    tiny_model: ReplacementModel, options: dict[str, float], words: str
) -> None:
    with pytest.raises(PieFastError, match=words):
        conditional_gradient(tiny_model, PROMPTS, None, 2, **options)  # type: ignore[arg-type]
