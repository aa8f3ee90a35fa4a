"""Missed mass: the estimate against all halves enumerated, and the coverage of its bound."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from pie_fast.attribution import Patcher
from pie_fast.behaviors import Behavior
from pie_fast.discover import discover
from pie_fast.errors import BehaviorError, PieFastError
from pie_fast.ground import Ground
from pie_fast.missed import MissedMass, fewest_subsets, missed_mass, shrinkage
from pie_fast.model import Switches
from pie_fast.plan import Plan
from pie_fast.planted import Motifs, Planted, plant
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

SWITCHES = Switches("counterfactual")


class Known:
    """A planted system, a circuit of it, and the exact mass of what the circuit leaves out."""

    def __init__(self, planted: Planted, model: ReplacementModel, circuit: Iterable[int]) -> None:
        self.planted, self.model, self.circuit = planted, model, sorted(circuit)
        self.prompts = planted.behavior.selection
        ground = Ground(model, self.prompts, "logit-diff", SWITCHES)
        rejected = sorted(planted.truth.everything - set(self.circuit))
        self.n_rejected = len(rejected)
        kept, others = ground.positions(self.circuit), ground.positions(rejected)
        bits = (np.arange(2 ** len(others))[:, None] >> np.arange(len(others))) & 1
        sets = [np.concatenate([kept, others[row == 1]]) for row in bits]
        values = ground.values(ground.gates(*sets), "logit-diff")
        # The complement of a set has all bits flipped: its number counts from the other end.
        self.squares = ((values - values[::-1]) ** 2).mean(1)
        self.mass = float(np.sqrt(self.squares.mean()))

    def estimate(self, **options: object) -> MissedMass:
        return missed_mass(
            self.model,
            self.circuit,
            self.prompts,
            metric="logit-diff",
            switches=SWITCHES,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Known]:
    """What is left out: by name."""

    def system(name: str, motifs: Motifs | None, *kept: str) -> Known:
        planted = plant(tmp_path_factory.mktemp(name), motifs, seed=0)
        circuit = {i for motif in kept for one in planted.truth.motifs[motif] for i in one}
        return Known(planted, planted.load(), circuit)

    return {
        "one feature": system("one", Motifs(2, 0, 0, 0, 0, 0, 0)),
        "many that add up": system("many", Motifs(5, 2, 1, 0, 0, 0, 1)),
        "two that cancel": system("two", Motifs(2, 0, 2, 0, 0, 0, 1), "plain"),
        "an and": system("and", None, "plain", "suppressor", "or_pair", "duplicate"),
        "an or and a duplicate": system("or", None, "plain", "suppressor", "and_pair"),
        "everything": system("all", Motifs(2, 1, 0, 1, 1, 1, 1)),
    }


def test_the_mass_of_what_adds_up_is_the_root_of_summed_squares(systems: dict[str, Known]) -> None:
    known = systems["many that add up"]
    ids = sorted(known.planted.truth.everything)
    patcher = Patcher(
        known.model, known.prompts, known.model.make_pool(ids), "logit-diff", SWITCHES
    )
    alone = patcher.effects([(i,) for i in range(len(ids))])
    assert known.mass == pytest.approx(np.sqrt((alone**2).sum(0).mean()), rel=1e-3)
    found = known.estimate(n_subsets=4096)
    assert found.mass == pytest.approx(known.mass, rel=0.05)
    assert found.absolute_upper >= np.abs(alone).sum(0).mean()


def test_what_cancels_is_seen(systems: dict[str, Known]) -> None:
    found = systems["two that cancel"].estimate()
    assert abs(found.together) < 0.01  # all rejected features at once do nothing
    assert found.mass > 0.5 and found.upper > 2**0.5 * 0.5


@pytest.mark.parametrize("n_subsets", [8, 12, 32, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bound_holds_as_often_as_it_says(
    systems: dict[str, Known], n_subsets: int, confidence: float
) -> None:
    """On halves drawn from all there are, whose squares are known exactly."""
    assert len(systems) == 6
    factor, repeats = shrinkage(n_subsets, confidence), 4000
    for name, known in systems.items():
        drawn = np.random.default_rng(0).choice(known.squares, (repeats, n_subsets))
        held = np.mean(np.sqrt(drawn.mean(1) / factor) >= known.mass)
        assert held >= confidence - 2 * (confidence * (1 - confidence) / repeats) ** 0.5, name


def test_so_do_bounds_that_are_measured(systems: dict[str, Known]) -> None:
    n_subsets, confidence, repeats = 12, 0.8, 200
    for name in ("many that add up", "an or and a duplicate", "everything"):
        known = systems[name]
        found = [
            known.estimate(n_subsets=n_subsets, confidence=confidence, seed=seed)
            for seed in range(repeats)
        ]
        held = np.mean([one.upper >= known.mass for one in found])
        assert held >= confidence - 2 * (confidence * (1 - confidence) / repeats) ** 0.5, name
        # The estimate is unbiased in the square, within what the draws scatter by,
        squares = np.array([one.mass**2 for one in found])
        scatter = known.squares.std() / (n_subsets * repeats) ** 0.5
        assert abs(squares.mean() - known.mass**2) <= 4 * scatter, name
        # ... and the bound is of use: below twice what it bounds.
        assert np.median([one.upper for one in found]) < 2 * known.mass, name


def test_interactions_stay_within_the_assumption(systems: dict[str, Known]) -> None:
    """E X^2 <= 3 (E X)^2 is proved for sums; the nonlinear motifs keep it too."""
    for name, known in systems.items():
        assert (known.squares**2).mean() <= 3 * known.squares.mean() ** 2, name


@pytest.mark.parametrize("n", [8, 20, 64])
def test_the_worst_case_of_the_bound(n: int) -> None:
    """The variable that the bound is made for is a coin: its exact tail is below the level."""
    from math import comb

    allowed = shrinkage(n, 0.95) * n / 3
    tail = sum(comb(n, i) * 2 ** (n - i) for i in range(int(allowed) + 1)) / 3**n
    assert 0.001 < tail <= 0.05


def test_shrinkage() -> None:
    assert fewest_subsets(0.95) == 8
    values = [shrinkage(n, 0.95) for n in (8, 16, 32, 64, 10**6)]
    assert values == sorted(values) and values[0] > 0 and values[-1] > 0.99
    assert shrinkage(32, 0.8) > shrinkage(32, 0.99)
    n = fewest_subsets(0.99)
    assert shrinkage(n, 0.99) > 0
    with pytest.raises(PieFastError, match=f"n_subsets is {n - 1}, must be at least {n}"):
        shrinkage(n - 1, 0.99)
    with pytest.raises(PieFastError, match="confidence is 1"):
        shrinkage(10, 1.0)


def test_figures_of_a_circuit(systems: dict[str, Known]) -> None:
    known = systems["an and"]
    told: list[int] = []
    before = known.model.spent
    found = known.estimate(n_subsets=10, seed=3, progress=lambda done, of: told.append(done))
    spent = known.model.spent - before
    # The prompts and their counterfactuals once, then two runs a half, circuit, model and empty.
    assert spent.forward == (2 + 23) * len(known.prompts) and spent.backward == 0
    assert told[-1] == 23
    assert found == known.estimate(n_subsets=10, seed=3)
    assert found != known.estimate(n_subsets=10, seed=4)
    assert (found.n_rejected, found.n_subsets, found.n_prompts) == (known.n_rejected, 10, 8)
    ids = sorted(known.planted.truth.everything)
    patcher = Patcher(
        known.model, known.prompts, known.model.make_pool(ids), "logit-diff", SWITCHES
    )
    out = [ids.index(i) for i in ids if i not in known.circuit]
    together, whole = patcher.effects([out, range(len(ids))]).mean(1)
    assert found.together == pytest.approx(together, abs=1e-4)
    assert found.whole == pytest.approx(whole, abs=1e-4)
    assert found.to_dict()["absolute_upper"] == found.absolute_upper


def test_nothing_left_out(tiny_model: ReplacementModel) -> None:
    prompts = random_prompts(3)
    everything = Ground(tiny_model, prompts, "logit-diff", SWITCHES).pool.global_ids
    dead = np.setdiff1d(np.arange(everything.max()), everything)[:1]
    for circuit in (everything, np.concatenate([everything, dead])):
        found = missed_mass(tiny_model, circuit, prompts, metric="kl", switches=SWITCHES)
        assert (found.n_rejected, found.mass, found.upper, found.together) == (0, 0, 0, 0)
        assert found.metric == "logprob"


def test_bad_input(tiny_model: ReplacementModel) -> None:
    with pytest.raises(BehaviorError, match="0 prompts"):
        missed_mass(tiny_model, [1], [], metric="logit-diff")
    with pytest.raises(PieFastError, match="n_subsets is 7, must be at least 8"):
        missed_mass(tiny_model, [1], random_prompts(2), metric="logit-diff", n_subsets=7)


def test_a_run_says_what_it_missed(tiny_model: ReplacementModel, tmp_path: Path) -> None:
    behavior = Behavior("random", tuple(random_prompts(6)), tuple(random_prompts(5, seed=4)))
    plan = Plan(10, curve=False, missed=9, baseline="zero")
    result = discover(tiny_model, behavior, plan, tmp_path / "run")
    kept = [row["layer"] * tiny_model.clt.n_features + row["index"] for row in result["features"]]
    alone = missed_mass(
        tiny_model,
        kept,
        behavior.held_out,
        metric=behavior.metric,
        switches=Switches("zero"),
        n_subsets=9,
    )
    assert result["missed_mass"] == alone.to_dict()
    assert result["missed_mass"]["n_prompts"] == 5 and result["settings"]["missed"] == 9
    assert json.loads((tmp_path / "run" / "result.json").read_text())["missed_mass"]["upper"] > 0
    off = discover(tiny_model, behavior, Plan(10, curve=False), tmp_path / "off")
    assert off["missed_mass"] is None
    for wrong in (7, -1):
        with pytest.raises(PieFastError, match=f"missed {wrong} is not 0 and not at least 8"):
            Plan(10, missed=wrong)
