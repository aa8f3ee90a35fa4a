"""Selectors of the registry: what they choose, what they cost, and how they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pie_fast.attribution import run_metric
from pie_fast.behaviors import Behavior
from pie_fast.capture import capture
from pie_fast.errors import BehaviorError, BudgetError, PieFastError
from pie_fast.ground import Ground
from pie_fast.methods import SELECTORS, select_on, selector_named
from pie_fast.methods.acdc import Sweeper
from pie_fast.methods.integrated import integrated_effects
from pie_fast.methods.selections import Selections
from pie_fast.methods.selector import ranked
from pie_fast.model import Switches, make_batch
from pie_fast.planted import Planted, plant
from pie_fast.replacement_model import ReplacementModel
from pie_fast.selectors import METHODS, MODEL_METHODS, Options, select_features
from torch_prompts import random_prompts

PROMPTS = random_prompts(5)
SWITCHES = Switches("counterfactual")


@pytest.fixture(scope="module")
def prepared(tiny_model: ReplacementModel) -> Ground:
    return Ground(tiny_model, PROMPTS, "logit-diff", SWITCHES, batch_size=2)


@pytest.fixture
def ground(prepared: Ground) -> Ground:
    return prepared.afresh()


def literally(ground: Ground, metric: str, rest: str, gates: dict[int, float]) -> np.ndarray:
    """The metric of each prompt, each run alone, with the gates of these global ids: `[5]`."""
    model = ground.model
    row = torch.tensor([[gates[g] for g in sorted(gates)]])
    out = []
    for prompt in PROMPTS:
        setup = model.prepare(make_batch([prompt], model.device), SWITCHES)
        with torch.no_grad():
            run = model.run(setup, model.make_pool(gates), row, rest=rest)
            out.append(float(run_metric(setup, run, metric)[0, 0]))
    return np.asarray(out)


# the registry


def test_the_command_line_knows_every_selector() -> None:
    assert tuple(SELECTORS) == MODEL_METHODS
    assert set(METHODS) == {*MODEL_METHODS, "paper", "auto"}
    for selector in SELECTORS.values():
        assert selector.words and selector.name == SELECTORS[selector.name].name


@pytest.mark.parametrize("name", MODEL_METHODS)
def test_each_selects_k_different_candidates_and_does_so_again(ground: Ground, name: str) -> None:
    options = {"sweeps": 4} if name == "acdc" else {}
    found = select_on(ground, name, 7, **options)
    assert len(set(found.ids.tolist())) == len(found.scores) == 7
    assert np.isin(found.ids, ground.pool.global_ids).all()
    assert np.isfinite(found.scores).all()
    assert found.selector == name and found.settings["budget"] == 7
    again = select_on(ground.afresh(), name, 7, **options)
    assert again.ids.tolist() == found.ids.tolist() and again.cost == found.cost
    assert len(select_on(ground, name, 0, **options).ids) == 0


@pytest.mark.parametrize("name", [n for n in MODEL_METHODS if SELECTORS[n].nested])
def test_a_nested_selector_begins_with_what_it_selects_for_less(ground: Ground, name: str) -> None:
    whole = select_on(ground, name, 10).ids.tolist()
    assert select_on(ground, name, 5).ids.tolist() == whole[:5]


@pytest.mark.parametrize("rank_by", ["signed", "abs", "mean_abs"])
def test_fap_and_magnitude_are_those_of_a_dump(
    tiny_model: ReplacementModel, ground: Ground, tmp_path: Path, rank_by: str
) -> None:
    behavior = Behavior("some", tuple(PROMPTS), ())
    dump = capture(
        tiny_model,
        behavior,
        tmp_path / "dump",
        metric="logit-diff",
        switches=SWITCHES,
        batch_size=2,
    )
    entries = dump.entries(0, dump.n_prompts)
    assert np.unique(entries.feature).tolist() == ground.pool.global_ids.tolist()
    k = len(dump.active_features())
    for method, options in (("fap", {"rank_by": rank_by}), ("magnitude", {})):
        theirs = select_features(dump, k, Options(method=method, rank_by=rank_by))
        ours = select_on(ground, method, k, **options)
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-6)


def test_of_equal_scores_the_lower_id_comes_first() -> None:
    places, scores = ranked(np.array([1.0, 3.0, 0.0, 3.0, -0.0]))
    assert places.tolist() == [1, 3, 0, 2, 4]
    assert scores.tolist() == [3.0, 3.0, 1.0, 0.0, 0.0]


def test_bad_input(tiny_model: ReplacementModel, ground: Ground) -> None:
    n = len(ground)
    for k in (-1, n + 1):
        with pytest.raises(BudgetError, match=f"budget {k} is outside 0 to {n}"):
            select_on(ground, "fap", k)
    with pytest.raises(PieFastError, match="selector 'best' is not one of random, magnitude"):
        selector_named("best")
    with pytest.raises(PieFastError, match="fap has no option 'speed'; it has: rank_by, gradient"):
        select_on(ground, "fap", 1, speed=3)
    with pytest.raises(PieFastError, match="random has no option 'rank_by'; it has: none"):
        select_on(ground, "random", 1, rank_by="abs")
    with pytest.raises(BehaviorError, match="there are 0 prompts"):
        Ground(tiny_model, [], "logit-diff", SWITCHES)
    for name, options, said in (
        ("fap", {"rank_by": "luck"}, "rank_by is 'luck'"),
        ("fap", {"gradient": "half"}, "gradient is 'half'"),
        ("fap-ig", {"steps": 0}, "steps is 0, must be at least 1"),
        ("fap-ig", {"metric": "luck"}, "'luck'"),
        ("relp", {"patterns": "no"}, "patterns is 'no'"),
        ("exact", {"direction": "up"}, "direction is 'up'"),
        ("acdc", {"pool": 0}, "pool is 0, must be at least 1"),
        ("acdc", {"sweeps": 0}, "sweeps is 0"),
        ("acdc", {"block": -2}, "block is -2"),
    ):
        with pytest.raises(PieFastError, match=said):
            select_on(ground, name, 1, **options)  # type: ignore[arg-type]


def test_options_are_read_as_what_their_default_is() -> None:
    acdc = selector_named("acdc")
    assert acdc.read_options(["pool=40", "rank_by=abs"]) == {"pool": 40, "rank_by": "abs"}
    grown = selector_named("conditional-gradient")
    assert grown.read_options(["share=0.25"]) == {"share": 0.25}
    for text, said in (
        ("pool", "'pool' of selector acdc is not KEY=VALUE"),
        ("pool=many", "option pool of selector acdc is 'many', must be an integer"),
        ("depth=3", "acdc has no option 'depth'; it has: pool, sweeps, block, rank_by"),
    ):
        with pytest.raises(PieFastError, match=said):
            acdc.read_options([text])
    with pytest.raises(PieFastError, match="is 'much', must be a number"):
        grown.read_options(["share=much"])


# cost


@pytest.mark.parametrize(
    ("name", "options", "forward", "backward"),
    [
        ("random", {}, 0, 0),
        ("magnitude", {}, 0, 0),
        ("fap", {}, 1, 1),
        ("relp", {}, 1, 1),
        ("gim", {}, 1, 1),
        ("fap-ig", {}, 5, 5),
        ("fap-ig", {"steps": 3, "metric": "kl"}, 3, 3),
        ("conditional-gradient", {"batch": 3}, 3, 3),
        ("conditional-shortlist", {"batch": 3, "shortlist": 4}, 3 * (1 + 5), 3),
    ],
)
def test_every_pass_is_counted(
    ground: Ground, name: str, options: dict[str, int], forward: int, backward: int
) -> None:
    found = select_on(ground, name, 9, **options)
    assert found.cost == {"forward": forward, "backward": backward}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("exact", {}),
        ("exact", {"direction": "denoising"}),
        ("acdc", {"sweeps": 5}),
        ("acdc", {"sweeps": 3, "pool": 1, "block": 1}),
        ("fap-synergy", {"pool": 12}),
        ("fap-synergy", {"pool": 12, "estimator": "exact", "direction": "both"}),
        ("fap-synergy", {"pool": 12, "synergy_prompts": 2}),
        ("conditional-shortlist", {"batch": 2, "shortlist": 3}),
    ],
)
def test_no_selector_costs_more_than_it_says_before(
    ground: Ground, name: str, options: dict[str, int]
) -> None:
    planned = selector_named(name).planned(ground, 9, **options)
    assert planned is not None
    most = planned.passes(len(PROMPTS))
    spent = select_on(ground, name, 9, **options).cost
    assert spent is not None
    assert 0 < spent["forward"] <= most["forward"] and spent["backward"] <= most["backward"]
    if name in ("exact", "conditional-shortlist"):
        assert spent == most
    if name == "exact":
        assert spent == most == {"forward": len(ground) + 1, "backward": 0}
    assert selector_named("fap").planned(ground, 9) is None


def test_a_batch_of_0_is_refused_and_not_planned_for_ever(ground: Ground) -> None:
    selector = selector_named("conditional-shortlist")
    assert selector.planned(ground, 9, batch=0) is not None
    with pytest.raises(PieFastError, match="batch is 0, must be at least 1"):
        selector.select(ground, 9, batch=0)


def test_costs_start_at_zero_afresh(ground: Ground) -> None:
    once = {"forward": 1.0, "backward": 1.0}
    assert select_on(ground, "fap", 3).cost == once
    assert select_on(ground, "fap", 9).cost == {"forward": 0.0, "backward": 0.0}
    assert select_on(ground.afresh(), "fap", 3).cost == once
    heavy = np.array([3.0, 1.0, 0.0, 0.0, 1.0])
    again = ground.reweighted(heavy)
    mean = np.abs(ground.effects()) @ heavy / heavy.sum()
    found = select_on(again, "fap", len(ground))
    assert found.cost == {"forward": 0.0, "backward": 0.0}, "known of every prompt already"
    assert found.scores == pytest.approx(np.sort(mean)[::-1])


def test_selections_answer_several_budgets_once(ground: Ground) -> None:
    nested = Selections(ground, selector_named("fap-ig"), {"steps": 2})
    assert nested.first(4).cost == {"forward": 2.0, "backward": 2.0}
    assert nested.first(20).cost == {"forward": 2.0, "backward": 2.0}
    assert nested.first(20).settings["budget"] == 20
    assert len(nested.longest(20).ids) == len(ground)
    swept = Selections(ground.afresh(), selector_named("acdc"), {"pool": 20, "sweeps": 3})
    spent = [swept.first(k).cost for k in (4, 6)]
    assert spent[0] is not None and spent[1] is not None
    assert spent[1]["forward"] > spent[0]["forward"]
    assert swept.planned(6) is None and swept.planned(5) is not None
    assert swept.first(4).ids.tolist() == swept.longest(4).ids.tolist()
    ids = [swept.first(k).ids.tolist() for k in (4, 6)]
    alone = [select_on(ground.afresh(), "acdc", k, pool=20, sweeps=3).ids.tolist() for k in (4, 6)]
    assert ids == alone, "what one budget measured changes nothing for another"


# what they measure


@pytest.mark.parametrize("metric", ["logit-diff", "kl"])
def test_integrated_effects_sum_to_the_whole_way(tiny_model: ReplacementModel, metric: str) -> None:
    """With activations as on the clean run: a JumpReLU's jump on the way has no gradient."""
    switches = Switches("counterfactual", activations="freeze")
    ground = Ground(tiny_model, PROMPTS, "logit-diff", switches)
    ends = ground.values(ground.gates((), range(len(ground))), metric)
    whole = ends[1] - ends[0]
    assert (np.abs(whole) > 0.1).all()
    errors = [
        np.abs(integrated_effects(ground, steps, metric).sum(0) - whole).max()
        for steps in (1, 8, 32)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2], "the midpoint rule's error is quadratic"
    assert errors[2] < 0.02 * np.abs(whole).max()


def test_one_step_of_integrated_gradients_is_the_gradient_half_way(ground: Ground) -> None:
    found = select_on(ground, "fap-ig", len(ground), steps=1, rank_by="signed")
    ids, step = ground.pool.global_ids.tolist(), 4e-3
    agreed = 0
    for place in range(0, len(ground), 12):
        halves = dict.fromkeys(ids, 0.5)
        one = int(found.ids[place])
        up, down = (
            literally(ground, "logit-diff", "baseline", {**halves, one: 0.5 + sign * step}).mean()
            for sign in (1, -1)
        )
        slope = (up - down) / (2 * step)
        agreed += bool(np.isclose(found.scores[place], slope, atol=2e-3, rtol=2e-2))
    assert agreed >= 0.8 * len(range(0, len(ground), 12))


def test_rules_are_fap_with_their_gradient(ground: Ground) -> None:
    for name, options, gradient in (
        ("relp", {}, "relp"),
        ("relp", {"patterns": "constant"}, "relp-ah"),
        ("gim", {}, "gim"),
    ):
        theirs = select_on(ground, "fap", len(ground), gradient=gradient)
        found = select_on(ground, name, len(ground), **options)
        assert found.ids.tolist() == theirs.ids.tolist()
        assert found.ids.tolist() != select_on(ground, "fap", len(ground)).ids.tolist()


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_exact_is_one_run_each(ground: Ground, direction: str) -> None:
    found = select_on(ground, "exact", len(ground), direction=direction)
    assert (np.diff(found.scores) <= 0).all()
    rest, moved = ("free", 0.0) if direction == "noising" else ("baseline", 1.0)
    some = int(ground.pool.global_ids[0])
    still = literally(ground, "logit-diff", rest, {some: 1.0 - moved})
    for place in range(0, len(ground), 17):
        after = literally(ground, "logit-diff", rest, {int(found.ids[place]): moved})
        assert found.scores[place] == pytest.approx(np.abs(after - still).mean(), abs=1e-4)


# acdc


def literal_sweep(
    ground: Ground, features: Sequence[int], tau: float
) -> tuple[list[int], list[float]]:
    """What is left of `features`, positions in the order of the sweep; the rise of each."""

    def kl(members: Sequence[int]) -> float:
        return -float(ground.mean(ground.values(ground.gates(members), "kl"))[0])

    kept, rises = list(features), []
    for one in features:
        without = [f for f in kept if f != one]
        rises.append(kl(without) - kl(kept))
        if rises[-1] < tau:
            kept = without
    return kept, rises


@pytest.mark.parametrize("block", [1, 2, 8, 100])
def test_a_sweep_is_the_literal_one(ground: Ground, block: int) -> None:
    score = ground.mean(np.abs(ground.effects()))
    features = np.argsort(score, kind="stable")[-24:]
    sweeper = Sweeper(ground.afresh(), features, block)
    sizes = set()
    for tau in (-1.0, 1e-3, 0.02, 0.1, 5.0):
        kept, rises = literal_sweep(ground, features.tolist(), tau)
        swept = sweeper.sweep(tau)
        assert features[swept.kept].tolist() == kept
        assert swept.rises == pytest.approx(rises, abs=1e-5)
        sizes.add(len(kept))
    assert {0, 24} < sizes and len(sizes) >= 4, "the thresholds tell nothing apart"


def test_speculation_costs_less_than_twice_the_literal_sweep(ground: Ground) -> None:
    features = np.argsort(ground.mean(np.abs(ground.effects())), kind="stable")[-40:]
    for tau in (-1.0, 1e-3, 0.02, 0.1, 5.0):
        sweeper = Sweeper(ground.afresh(), features, 8)
        before = ground.model.spent
        sweeper.sweep(tau)
        runs = (ground.model.spent - before).forward / len(PROMPTS)
        assert 40 <= runs <= 2 * 40
        before = ground.model.spent
        sweeper.sweep(tau)
        assert ground.model.spent == before, "all sets are known"


def test_acdc_bisects_to_the_budget(ground: Ground) -> None:
    score = ground.mean(np.abs(ground.effects()))
    features = np.argsort(-score, kind="stable")[:30][::-1]
    sweeper, sizes, exact = Sweeper(ground, features, 8), {}, 0
    for tau in np.geomspace(1e-5, 10, 60):
        kept = features[sweeper.sweep(float(tau)).kept]
        sizes[len(kept)] = sorted(ground.pool.global_ids[kept].tolist())
    for k in (3, 6, 10, 15):
        found = select_on(ground.afresh(), "acdc", k, pool=30)
        assert (np.diff(found.scores) <= 0).all()
        if k in sizes:
            exact += sorted(found.ids.tolist()) == sizes[k]
    assert exact >= 2
    assert select_on(ground, "acdc", 5, pool=1).ids.shape == (5,), "the pool is 2 K at least"
    assert select_on(ground, "acdc", len(ground)).ids.shape == (len(ground),)


def _swept(ground: Ground, features: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    swept = Sweeper(ground, features, 8).sweep(tau)
    return features[swept.kept], swept.rises


def test_long_selectors_tell_how_far_they_are(prepared: Ground) -> None:
    for name, options in (
        ("fap-ig", {"steps": 3}),
        ("exact", {}),
        ("acdc", {"pool": 12, "sweeps": 3}),
        ("fap-synergy", {"pool": 12}),
    ):
        told: list[tuple[int, int]] = []
        # one that nothing has been asked of: what is known already takes no time
        fresh = Ground(prepared.model, prepared.prompts, prepared.metric, prepared.switches)
        fresh.progress = lambda done, total, told=told: told.append((done, total))
        select_on(fresh, name, 4, **options)
        assert told and all(done <= total for done, total in told), name
        assert [done for done, _ in told] == sorted(done for done, _ in told)


# planted circuits


@pytest.fixture(scope="module", params=[0, 1, 2])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("planted") / "system", seed=request.param)


def test_selectors_that_are_redundancy_aware_take_no_copy(planted: Planted) -> None:
    behavior, truth = planted.behavior, planted.truth
    ground = Ground(planted.load(), behavior.selection, behavior.metric, SWITCHES)
    aware = [name for name, selector in SELECTORS.items() if selector.redundancy_aware]
    assert {"acdc", "conditional-shortlist"} <= set(aware)
    ((original, copy),) = truth.motifs["duplicate"]
    for name in aware:
        kept = select_on(ground.afresh(), name, len(truth.circuit)).ids.tolist()
        assert (original in kept) != (copy in kept), name
    swept = select_on(ground.afresh(), "acdc", len(truth.circuit))
    found = {original if one == copy else one for one in swept.ids.tolist()}
    assert found == set(truth.circuit)


def test_what_copies_share_is_asked_once_and_charged_to_each(tiny_model: ReplacementModel) -> None:
    ground = Ground(tiny_model, random_prompts(4), "logit-diff", Switches("counterfactual"))
    costs = [select_on(ground.afresh(), "fap", 3).cost for _ in range(2)]
    assert costs == [{"forward": 1.0, "backward": 1.0}] * 2
    again = ground.afresh()
    first, second = (select_on(again, "fap", 3).cost for _ in range(2))
    assert first == {"forward": 1.0, "backward": 1.0}
    assert second == {"forward": 0.0, "backward": 0.0}
    weighted = again.reweighted([1.0, 0.0, 2.0, 1.0])
    assert select_on(weighted, "fap", 3).cost == {"forward": 0.0, "backward": 0.0}
