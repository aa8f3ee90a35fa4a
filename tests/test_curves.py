"""Figures of curves over budgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_fast.curves import SHARES, budget_reaching, cpr_cmd, log_area, log_auc, share_saved
from pie_fast.errors import PieFastError

#: KL = exp(-K / 10): straight in log KL
LINE = {k: math.exp(-k / 10) for k in (10, 20, 40, 80)}


@given(st.floats(10, 80))
def test_interpolation_in_log_kl_is_exact_on_a_line(k: float) -> None:
    found = budget_reaching(LINE, math.exp(-k / 10))
    assert found == pytest.approx(k, rel=1e-9)


def test_a_kl_never_reached_and_one_reached_at_once() -> None:
    assert budget_reaching(LINE, 1e-5) is None
    assert budget_reaching(LINE, 0.9) == 10


def test_a_curve_that_rises_again_is_reached_at_its_first_crossing() -> None:
    assert budget_reaching({1: 1.0, 2: 0.1, 3: 1.0, 4: 0.01}, 0.1) == 2


def test_a_selector_that_is_twice_as_good_saves_half() -> None:
    twice = {k: math.exp(-k / 5) for k in (5, 10, 20, 40)}
    assert share_saved(twice, LINE, 20, empty_kl=1.0) == pytest.approx(0.5)
    assert share_saved(LINE, LINE, 20, empty_kl=1.0) == pytest.approx(0.0)
    assert share_saved(LINE, twice, 20, empty_kl=1.0) == pytest.approx(-1.0)


def test_saved_is_undefined_where_nothing_works_or_the_baseline_never_gets_there() -> None:
    bad = {k: 0.9 - k / 1000 for k in (10, 20, 40)}
    assert share_saved(bad, bad, 20, empty_kl=1.0) is None
    assert share_saved(LINE, bad, 20, empty_kl=10.0) is None
    assert share_saved(dict.fromkeys((10, 20), 0.4), {10: 0.3, 20: 0.2}, 10, empty_kl=1.0) is None


def test_log_area_of_a_constant_is_its_logarithm() -> None:
    assert log_area({20: 0.01, 50: 0.01, 800: 0.01}) == pytest.approx(-2)
    assert log_area({20: 0.0, 50: 0.0}) == pytest.approx(-6)
    with pytest.raises(PieFastError, match="1 budgets"):
        log_area({20: 1.0})


def test_mib_grid_constants() -> None:
    ones = [1.0] * len(SHARES)
    assert cpr_cmd(ones) == (pytest.approx(0.999), pytest.approx(0.0))
    assert log_auc(ones) == pytest.approx(1.0)
    half = cpr_cmd(list(np.full(len(SHARES), 0.5)))
    assert half == (pytest.approx(0.4995), pytest.approx(0.4995))
    with pytest.raises(PieFastError, match="3 values"):
        cpr_cmd([1.0, 1.0, 1.0])


def test_curves_that_are_none_are_refused() -> None:
    with pytest.raises(PieFastError, match="no points"):
        budget_reaching({}, 0.1)
    with pytest.raises(PieFastError, match="K=5 is nan"):
        budget_reaching({5: math.nan}, 0.1)
