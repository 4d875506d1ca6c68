"""Intervals against published or hand-computed numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.measure.intervals import paired_score_difference, paired_success_difference, success_rate


def _table(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


def test_wilson_at_all_successes_is_n_over_n_plus_z_squared():
    estimate = success_rate(50, 50)
    assert estimate.value == 1.0
    assert estimate.low == pytest.approx(50 / (50 + 1.959964**2), abs=1e-6)
    assert estimate.high == 1.0


def test_wilson_matches_the_closed_form():
    # p = .8, n = 10, z = 1.959964: centre (p + z^2/2n)/(1 + z^2/n), half width z sqrt(pq/n + z^2/4n^2)/(1 + z^2/n)
    estimate = success_rate(8, 10)
    assert estimate.low == pytest.approx(0.49016, abs=1e-5)
    assert estimate.high == pytest.approx(0.94332, abs=1e-5)


def test_newcombe_reproduces_the_example_of_altman():
    # Statistics with Confidence (2000), table 6.2: 14 both, 5 only first, 0 only second, 22 neither; printed .01 to .23
    first, second = _table(14, 5, 0, 22)
    estimate = paired_success_difference(second, first)
    assert estimate.value == pytest.approx(5 / 41)
    assert (round(estimate.low, 2), round(estimate.high, 2)) == (0.01, 0.23)


def test_newcombe_without_correlation_adds_squares():
    # Independent pairs (ad = bc) have phi = 0: limits are the root of the summed squares of Wilson's arms.
    first, second = _table(4, 4, 4, 4)
    rate = success_rate(8, 16)
    estimate = paired_success_difference(first, second)
    arm = np.hypot(rate.value - rate.low, rate.high - rate.value)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((-arm, 0.0, arm))


def test_identical_perfect_episodes_still_have_a_width():
    estimate = paired_success_difference([True] * 50, [True] * 50)
    assert estimate.value == 0.0
    assert estimate.low == pytest.approx(-(1 - 50 / (50 + 1.959964**2)), abs=1e-6)
    assert estimate.high == pytest.approx(1 - 50 / (50 + 1.959964**2), abs=1e-6)


def test_score_difference_is_the_t_interval():
    # differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(.975, 2) = 4.302653
    estimate = paired_score_difference([0.0, 0.0, 0.0], [1.0, 2.0, 3.0])
    half = 4.302653 / np.sqrt(3)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2.0, 2 - half, 2 + half), rel=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_swapping_the_methods_mirrors_the_interval(pairs):
    first, second = zip(*pairs, strict=True)
    forward, backward = paired_success_difference(first, second), paired_success_difference(second, first)
    assert forward.value == pytest.approx(-backward.value)
    assert forward.low == pytest.approx(-backward.high)
    assert -1 <= forward.low <= forward.value <= forward.high <= 1


def test_unequal_numbers_of_episodes_are_refused():
    with pytest.raises(ValueError, match="same episodes"):
        paired_success_difference([True, False], [True])


def test_more_successes_than_episodes_are_refused():
    with pytest.raises(ValueError, match="5 of 3"):
        success_rate(5, 3)
