"""Two runs side by side, against counts made by hand and scipy's and numpy's numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_fast.comparing import compare_runs
from pie_fast.errors import PieFastError

NAMES = st.lists(st.integers(0, 30), unique=True, max_size=12)


def run(
    indices: list[int], kl: Any = (0.2, 0.4, 0.1), *, unit: str = "feature", **settings: Any
) -> dict[str, Any]:
    return {
        "features": [
            {"layer": 1, "index": index, "score": 1.0, "rank": rank}
            for rank, index in enumerate(indices)
        ],
        "evaluation": {
            "kl_divergences": list(kl),
            "split": "held_out",
            "kl_direction": "model||circuit",
        },
        "unit": unit,
        "settings": {"behavior_hash": "h", "method": "auto", **settings},
    }


@given(NAMES, NAMES)
def test_overlap_is_that_of_sets(first: list[int], second: list[int]) -> None:
    found = compare_runs(run(first), run(second))
    a, b = {f"L1:{i}" for i in first}, {f"L1:{i}" for i in second}
    assert (found.n_first, found.n_second, found.shared) == (len(a), len(b), len(a & b))
    assert set(found.only_first) == a - b and set(found.only_second) == b - a
    assert {m.feature for m in found.moved} == a & b
    assert found.jaccard == (len(a & b) / len(a | b) if a | b else None)
    for m in found.moved:
        index = int(m.feature.removeprefix("L1:"))
        assert (m.rank_first, m.rank_second) == (first.index(index), second.index(index))
    moves = [abs(m.by) for m in found.moved]
    assert moves == sorted(moves, reverse=True)
    json.dumps(found.to_dict(), allow_nan=False)


@given(st.lists(st.integers(0, 30), unique=True, min_size=2, max_size=12), st.randoms())
def test_rank_correlation_is_pearsons_of_the_ranks(first: list[int], random: Any) -> None:
    second = list(first)
    random.shuffle(second)
    found = compare_runs(run(first), run([99, *second])).rank_correlation
    ranks = [(first.index(i), second.index(i)) for i in first]
    assert found == pytest.approx(np.corrcoef(np.asarray(ranks).T)[0, 1])
    assert compare_runs(run(first), run(first)).rank_correlation == 1


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=30))
def test_the_difference_is_of_fidelities(kl: list[tuple[float, float]]) -> None:
    a, b = np.asarray(kl).T
    found = compare_runs(run([1], a), run([1], b), seed=3)
    assert found.fidelity_first == 1 - min(a.mean(), 1)
    assert found.difference == found.fidelity_second - found.fidelity_first
    assert found.interval is not None and found.why is None
    low, high = found.interval
    assert low <= high
    back = compare_runs(run([1], b), run([1], a), seed=3)
    assert back.interval == pytest.approx((-high, -low))


def test_what_is_hard_for_both_cancels() -> None:
    hard = np.random.default_rng(0).uniform(0, 0.6, 50)
    found = compare_runs(run([1], hard + 0.1), run([1], hard))
    assert found.difference == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.1, 0.1))


def test_the_interval_is_the_bootstraps() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 0.5, (2, 40))
    found = compare_runs(run([1], a), run([1], b), seed=7)
    draws = np.random.default_rng(7).integers(0, 40, (1000, 40))
    spread = [(a[draw].mean() - b[draw].mean()) for draw in draws]
    assert found.interval == pytest.approx(tuple(np.quantile(spread, [0.025, 0.975])))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"behavior_hash": "g"}, "judged on different prompts"),
        ({"split": "selection"}, "split is 'held_out' and 'selection'"),
        ({"kl_direction": "circuit||model"}, "kl_direction is"),
        ({"kl_divergences": [0.1]}, "judged on 3 and 1 prompts"),
    ],
)
def test_other_prompts_give_no_interval(change: dict[str, Any], why: str) -> None:
    other = run([1])
    other["settings" if "behavior_hash" in change else "evaluation"].update(change)
    found = compare_runs(run([1]), other)
    assert found.interval is None and found.why is not None and why in found.why
    assert found.difference == found.fidelity_second - found.fidelity_first


def test_runs_that_do_not_say_what_they_were_judged_on_give_no_interval() -> None:
    one = run([1])
    del one["settings"]
    assert compare_runs(one, one).why == "not both say which prompts they were judged on"


def test_settings_that_differ_are_listed() -> None:
    found = compare_runs(run([1], method="auto", device="cpu"), run([1], method="single", seed=1))
    assert found.settings == {"method": ("auto", "single"), "seed": (None, 1)}


def test_where_a_run_was_is_no_difference() -> None:
    one = run([1], behavior_hash="g", places={"clt": "/a/clt"}, clt="/a/clt", model="/a/one")
    other = run([1], places={"clt": "/b/clt"}, clt="/b/clt", model="/b/two")
    assert compare_runs(one, other).settings == {"model": ("/a/one", "/b/two")}
    one["settings"] |= {"clt": "demo/clt", "model": "a/same"}
    other["settings"] |= {"model": "b/same"}
    assert compare_runs(one, other).settings == {"model": ("a/same", "b/same")}


def test_nodes_are_told_apart_by_their_slot() -> None:
    one, other = run([5], unit="node"), run([5], unit="node")
    one["features"][0]["slot"], other["features"][0]["slot"] = "S2", "END"
    found = compare_runs(one, other)
    assert found.only_first == ("L1:5@S2",) and found.only_second == ("L1:5@END",)
    with pytest.raises(PieFastError, match="first run keeps features and the second nodes"):
        compare_runs(run([5]), other)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "the second result lists no features"),
        ({**run([1]), "features": [3]}, "the second result lists no features"),
        (run([1, 1]), "the second result lists a feature twice"),
        ({**run([1]), "evaluation": {}}, "the second result holds no KL"),
        (run([1], []), "at least one finite number"),
        (run([1], [float("nan")]), "at least one finite number"),
        (run([1], ["a"]), "the second result holds no KL"),
        ({**run([1]), "settings": "a"}, "the second result's settings is 'a', must be an object"),
    ],
)
def test_what_is_no_run_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(PieFastError, match=message):
        compare_runs(run([1]), bad)
