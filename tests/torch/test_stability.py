"""Stability: shares against selecting again by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pie_fast
from pie_fast.behaviors import load_behavior
from pie_fast.capture import capture
from pie_fast.conditional import conditional_gradient
from pie_fast.discover import discover
from pie_fast.errors import PieFastError
from pie_fast.plan import Plan
from pie_fast.replacement_model import ReplacementModel, load_model
from pie_fast.selectors import Options
from pie_fast.stability import (
    ResampledScores,
    draw_prompts,
    frequency_by_score,
    frequency_by_synergy,
    selection_frequency,
)
from torch_prompts import random_prompts

PROMPTS = random_prompts(4)


@pytest.fixture(scope="module")
def demo() -> ReplacementModel:
    return load_model(pie_fast.demo_model_path(), pie_fast.demo_clt_path(), device="cpu")


@pytest.fixture(scope="module")
def dump(demo: ReplacementModel, tmp_path_factory: pytest.TempPathFactory) -> pie_fast.FeatureDump:
    ioi = load_behavior("ioi", tokenizer=demo.host.tokenizer, n_prompts=12, seed=0)
    return capture(demo, ioi, tmp_path_factory.mktemp("dumps") / "ioi")


@pytest.mark.parametrize("rank_by", ["signed", "abs", "mean_abs"])
def test_scores_on_all_prompts_are_those_of_the_dump(
    dump: pie_fast.FeatureDump, rank_by: str
) -> None:
    scores = ResampledScores(dump, rank_by)
    np.testing.assert_allclose(
        scores.on(np.ones(dump.n_prompts)), dump.score(rank_by)[scores.ids], atol=1e-12
    )


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), rank_by=st.sampled_from(["signed", "abs", "mean_abs"]))
def test_scores_on_drawn_prompts_are_means_over_them(
    dump: pie_fast.FeatureDump, data: st.DataObject, rank_by: str
) -> None:
    n = dump.n_prompts
    drawn = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2 * n))
    scores = ResampledScores(dump, rank_by)
    effects = np.zeros((n, dump.n_layers * dump.n_features))
    for p in range(n):
        entries = dump.entries(p, 1)
        np.add.at(effects[p], entries.feature, entries.attribution)
    rows = effects[drawn][:, scores.ids]
    wanted = np.abs(rows).mean(0) if rank_by == "mean_abs" else rows.mean(0)
    wanted = np.abs(wanted) if rank_by == "abs" else wanted
    found = scores.on(np.bincount(drawn, minlength=n).astype(float))
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_shares_count_selections(dump: pie_fast.FeatureDump) -> None:
    ids, _ = dump.top_k(30)
    shares = frequency_by_score(dump, ids, "mean_abs", n_resamples=7, seed=3)
    scores, again = ResampledScores(dump, "mean_abs"), np.zeros(30)
    for weights in draw_prompts(dump.n_prompts, 7, seed=3):
        best = scores.ids[np.argsort(-scores.on(weights), kind="stable")[:30]]
        again += np.isin(ids, best)
    assert shares.tolist() == (again / 7).tolist()
    assert 0 < shares.min() < 1 == shares[0], "the case tells stable features from others"
    none = np.zeros((len(scores.ids),) * 2, np.float32)
    by_synergy = frequency_by_synergy(
        dump, ids, scores.ids, none, "mean_abs", n_resamples=7, seed=3
    )
    assert by_synergy.tolist() == shares.tolist(), "no synergy: the same selections"


def test_resamples_keep_the_number_of_prompts() -> None:
    drawn = draw_prompts(9, 50, seed=1)
    assert drawn.shape == (50, 9)
    assert (drawn.sum(1) == 9).all() and drawn.min() == 0 and drawn.max() > 1
    assert (drawn == draw_prompts(9, 50, seed=1)).all()
    told: list[tuple[int, int]] = []
    selection_frequency(
        lambda weights: [1], [1, 2], 3, n_resamples=2, progress=lambda *at: told.append(at)
    )
    assert told == [(1, 2), (2, 2)]
    for n_prompts, n_resamples, name in ((0, 1, "n_prompts"), (1, 0, "n_resamples")):
        with pytest.raises(PieFastError, match=f"{name} is 0"):
            draw_prompts(n_prompts, n_resamples)


def test_weights_of_a_growth_are_prompts_drawn_more_than_once(
    tiny_model: ReplacementModel,
) -> None:
    candidates = tiny_model.attribute(PROMPTS).active.tolist()
    drawn = [PROMPTS[i] for i in (0, 0, 0, 2)]
    weights = np.array([3.0, 0.0, 1.0, 0.0])
    by_weight = conditional_gradient(
        tiny_model, PROMPTS, candidates, 12, weights=weights, batch_size=3
    )
    by_hand = conditional_gradient(tiny_model, drawn, candidates, 12)
    assert by_weight.ids.tolist() == by_hand.ids.tolist()
    np.testing.assert_allclose(by_weight.scores, by_hand.scores, rtol=1e-4, atol=1e-6)
    for bad in (np.ones(3), np.zeros(4), np.array([1, 1, 1, -1.0]), np.array([np.nan] * 4)):
        with pytest.raises(PieFastError, match="for each of 4 prompts"):
            conditional_gradient(tiny_model, PROMPTS, candidates, 1, weights=bad)


@pytest.mark.parametrize("method", ["auto", "fap", "fap-synergy", "random"])
def test_a_run_lists_it(demo: ReplacementModel, tmp_path: Path, method: str) -> None:
    ioi = load_behavior("ioi", tokenizer=demo.host.tokenizer, n_prompts=16, seed=0)
    plan = Plan(12, Options(method), stability=3, curve=False, synergy_prompts=4)
    discover(demo, ioi, plan, tmp_path / "run")
    features = json.loads((tmp_path / "run" / "result.json").read_text())["features"]
    if method == "random":
        assert not any("stability" in row for row in features)
    else:
        shares = [row["stability"] for row in features]
        assert all(share in (0, 1 / 3, 2 / 3, 1) for share in shares)
        assert max(shares) == 1
    with pytest.raises(PieFastError, match="stability -1"):
        Plan(12, stability=-1)
