"""Fisher-Gram and LinKL against their definitions and the obvious algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pie_fast.errors import PieFastError
from pie_fast.ground import Ground
from pie_fast.methods import SELECTORS, select_on
from pie_fast.methods.fisher import Linear, by_gram, by_kl, linearise, log_softmax
from pie_fast.model import Setup, Switches, make_batch
from pie_fast.planted import Planted, plant
from pie_fast.replacement_model import ReplacementModel
from torch_prompts import random_prompts

SWITCHES = Switches("counterfactual")
PROMPTS = random_prompts(6)
WEIGHTS = np.array([1.0, 2.0, 0.0, 1.0, 1.0, 3.0])
NAMES = ("fisher-gram", "linkl")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("planted"), seed=0)


def ground(model: ReplacementModel, **options: object) -> Ground:
    return Ground(model, PROMPTS, "logit-diff", SWITCHES, **options)  # type: ignore[arg-type]


def kl(p_logits: NDArray[np.float64], q_logits: NDArray[np.float64]) -> NDArray[np.float64]:
    p, q = log_softmax(p_logits), log_softmax(q_logits)
    return np.asarray((np.exp(p) * (p - q)).sum(-1))


def random_linear(seed: int, at_model: bool, n: int = 9) -> Linear:
    """As of 5 prompts and 4 outcomes; the point of linearisation is the model itself or not."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(5, 4))
    own = logits if at_model else logits + rng.normal(size=(5, 4))
    weights = rng.random(5)
    slopes = 0.5 * rng.normal(size=(5, 4, n))
    return Linear(np.arange(n), log_softmax(own), logits, slopes, weights / weights.sum())


def linear_kl(linear: Linear, lost: list[int]) -> float:
    left = linear.logits - linear.slopes[..., lost].sum(-1)
    return float(linear.weights @ kl(linear.model, left))


def quadratic(linear: Linear, lost: list[int]) -> float:
    slope, gram = linear.gram()
    return float(-slope[lost].sum() + 0.5 * gram[np.ix_(lost, lost)].sum())


def aligned(linear: Linear) -> Linear:
    """Outcomes, which are in an order of each prompt's own, by ascending logit."""
    order = linear.logits.argsort(1)
    return replace(
        linear,
        model=np.take_along_axis(linear.model, order, 1),
        logits=np.take_along_axis(linear.logits, order, 1),
        slopes=np.take_along_axis(linear.slopes, order[..., None], 1),
    )


def eliminate(
    linear: Linear, cost: Callable[[Linear, list[int]], float]
) -> tuple[list[int], list[float]]:
    """The obvious algorithm: every loss tried from scratch in every step."""
    n = linear.slopes.shape[-1]
    lost: list[int] = []
    costs = []
    while len(lost) < n:
        rest = [i for i in range(n) if i not in lost]
        tried = [cost(linear, [*lost, i]) - cost(linear, lost) for i in rest]
        costs.append(min(tried))
        lost.append(rest[int(np.argmin(tried))])
    return lost, costs


@pytest.mark.parametrize("at_model", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_elimination_is_that_of_brute_force(seed: int, at_model: bool) -> None:
    linear = random_linear(seed, at_model)
    for rule, cost in ((by_gram, quadratic), (by_kl, linear_kl)):
        order, costs = rule(linear)
        naive_order, naive_costs = eliminate(linear, cost)
        assert order == naive_order
        assert costs == pytest.approx(naive_costs, abs=1e-10)


def test_elimination_of_none_and_of_one() -> None:
    for n in (0, 1):
        linear = random_linear(0, at_model=True, n=n)
        for rule in (by_gram, by_kl):
            order, costs = rule(linear)
            assert order == list(range(n)) and len(costs) == n


@pytest.mark.parametrize("seed", range(5))
def test_linkl_stands_large_logits(seed: int) -> None:
    small = random_linear(seed, at_model=False)
    large = Linear(
        small.members, small.model, 300 * small.logits, 300 * small.slopes, small.weights
    )
    order, costs = by_kl(large)
    naive_order, naive_costs = eliminate(large, linear_kl)
    assert order == naive_order
    assert costs == pytest.approx(naive_costs, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_gram_is_positive_semidefinite_and_the_kl_of_tiny_losses(seed: int) -> None:
    linear = random_linear(seed, at_model=True)
    slope, gram = linear.gram()
    assert np.linalg.eigvalsh(gram).min() > -1e-12
    assert abs(slope).max() < 1e-12
    tiny = Linear(linear.members, linear.model, linear.logits, 1e-3 * linear.slopes, linear.weights)
    everything = list(range(len(gram)))
    assert 0.5e-6 * gram.sum() == pytest.approx(linear_kl(tiny, everything), rel=0.01)
    # Away from the model the slope is what a tiny loss does.
    away = random_linear(seed, at_model=False)
    nudged = Linear(away.members, away.model, away.logits, 1e-4 * away.slopes, away.weights)
    change = linear_kl(nudged, everything) - linear_kl(nudged, [])
    assert change == pytest.approx(quadratic(nudged, everything), rel=1e-4, abs=1e-12)


def test_slopes_are_derivatives_of_the_logits(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model, weights=WEIGHTS, batch_size=4)
    members = np.arange(0, len(here), 3)
    vocab = tiny_model.host.vocab_size
    linear = aligned(linearise(here, members, vocab))  # all tokens: none stands for others
    assert linear.slopes.shape == (6, vocab, len(members))
    assert linear.weights == pytest.approx(WEIGHTS / 8)
    pool = tiny_model.make_pool(here.pool.global_ids[members].tolist())
    for row, prompt in enumerate(PROMPTS):
        setup = tiny_model.prepare(make_batch([prompt], tiny_model.device), SWITCHES)

        def logits(gates: torch.Tensor, setup: Setup = setup) -> torch.Tensor:
            run = tiny_model.run(setup, pool, gates[None], rest="baseline", gradient="full")
            return run.logits[0, 0].sort().values

        expected = torch.autograd.functional.jacobian(logits, torch.ones(len(members)))
        assert linear.slopes[row] == pytest.approx(expected.numpy(), abs=1e-4)


def test_few_outcomes_make_a_coarser_kl(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model)
    members, vocab = np.arange(0, len(here), 2), tiny_model.host.vocab_size
    whole, coarse = linearise(here, members, vocab), linearise(here, members, 4)
    assert coarse.model.shape == (6, 5)
    for linear in (whole, coarse):
        assert np.exp(linear.model).sum(1) == pytest.approx(np.ones(6))
    kept = here.gates(members)
    assert linear_kl(whole, []) == pytest.approx(-here.mean(here.values(kept))[0], rel=1e-3)
    assert 0 < linear_kl(coarse, []) <= linear_kl(whole, [])
    # The logit of the others moves with theirs, by their probabilities.
    for row in range(6):
        own = np.abs(whole.logits[row, :, None] - coarse.logits[row, :4]).argmin(0)
        others = np.setdiff1d(np.arange(vocab), own)
        share = np.exp(log_softmax(whole.logits[row, others]))
        assert coarse.slopes[row, 4] == pytest.approx(share @ whole.slopes[row, others], abs=1e-3)
        assert coarse.slopes[row, :4] == pytest.approx(whole.slopes[row, own], abs=1e-4)


def test_linkl_is_exact_where_logits_are_linear(planted: Planted) -> None:
    """The plain features of a planted system add to the answer's logit, and nothing else moves."""
    model = planted.load()
    ids = sorted(
        i for name in ("plain", "suppressor") for m in planted.truth.motifs[name] for i in m
    )
    here = Ground(model, planted.behavior.selection, "logit-diff", SWITCHES, candidates=ids)
    linear = linearise(here, np.arange(len(ids)), 2)
    order, costs = by_kl(linear)
    kl_left = linear_kl(linear, [])
    for done, cost in enumerate(costs, start=1):
        kl_left += cost
        exact = -here.mean(here.values(here.gates(np.array(order[done:], dtype=np.int64))))[0]
        assert kl_left == pytest.approx(exact, rel=1e-3)


def test_one_order_holds_every_budget(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model)
    n = len(here)
    for name in NAMES:
        whole = select_on(here, name, n, tokens=4)
        assert sorted(whole.ids.tolist()) == here.pool.global_ids.tolist()
        assert whole.cost == {"forward": 1.0, "backward": 5.0}
        for k in (0, 1, 7):
            assert select_on(here, name, k, tokens=4).ids.tolist() == whole.ids[:k].tolist()


def test_a_pool_ranks_the_best_and_leaves_the_others_behind(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model)
    by_effect = select_on(here, "fap", len(here)).ids.tolist()
    for name in NAMES:
        found = select_on(here.afresh(), name, len(here), tokens=4, pool=20)
        assert set(found.ids[:20].tolist()) == set(by_effect[:20])
        assert found.ids[20:].tolist() == by_effect[20:]
        assert found.cost == {"forward": 2.0, "backward": 6.0}
        everything = select_on(here, name, len(here), tokens=4, pool=0).ids.tolist()
        assert everything == select_on(here, name, len(here), tokens=4).ids.tolist()


def test_what_they_find_of_a_planted_circuit(planted: Planted) -> None:
    here = Ground(planted.load(), planted.behavior.selection, "logit-diff", SWITCHES)
    truth = planted.truth
    members = set(truth.motifs["or_pair"][0])
    for name in NAMES:
        found = set(select_on(here, name, len(truth.circuit)).ids.tolist())
        # Logits linear at the full model cannot see that the two back each other up.
        assert not found & members and len(found & truth.circuit) == 6


def test_bad_input(tiny_model: ReplacementModel) -> None:
    here = ground(tiny_model)
    for name in NAMES:
        assert not SELECTORS[name].redundancy_aware
        with pytest.raises(PieFastError, match="tokens is 1, must be at least 2"):
            select_on(here, name, 3, tokens=1)
    with pytest.raises(PieFastError, match="pool is -1, must be at least 0"):
        select_on(here, "linkl", 3, pool=-1)
