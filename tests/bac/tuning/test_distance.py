"""The distance between distributions of action chunks, where its value is known."""

from math import erf, exp, pi, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.tuning.distance import bootstrap, distance, energy_distances, mean_shift, spread_ratio


def normal(draws, observations=3, *, shift=0.0, scale=1.0, seed=0, size=(1, 1)):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(draws, observations, *size, generator=generator, dtype=torch.float64)


def test_two_single_chunks_are_twice_their_difference_apart():
    zero, five = torch.zeros(2, 1, 3, 7), torch.full((2, 1, 3, 7), 5.0)
    assert energy_distances(five, zero).tolist() == pytest.approx([10.0])
    assert energy_distances(zero, zero).tolist() == [0.0]


def test_by_hand():
    """X is 0 or 2, Y is 1 or 5: E|X - Y| = (1 + 5 + 1 + 3) / 4, E|X - X'| = 2, E|Y - Y'| = 4."""
    x, y = torch.tensor([0.0, 2.0])[:, None, None], torch.tensor([1.0, 5.0])[:, None, None]
    assert energy_distances(x, y).tolist() == pytest.approx([2 * 10 / 4 - 2 - 4])


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_a_shifted_normal_distribution_is_as_far_as_theory_says(shift):
    """E|N(d, 2)| = 2 / sqrt(pi) exp(-d^2 / 4) + d erf(d / 2)."""
    between = 2 / sqrt(pi) * exp(-(shift**2) / 4) + shift * erf(shift / 2)
    found = energy_distances(normal(500, 40, shift=shift, seed=1), normal(500, 40))
    assert found.mean().item() == pytest.approx(2 * between - 4 / sqrt(pi), rel=0.1)


def test_it_is_zero_in_expectation_between_two_halves_of_the_same_draws():
    values = torch.cat(
        [energy_distances(normal(8, 500, seed=seed), normal(8, 500, seed=seed + 50)) for seed in range(8)]
    )
    error = values.std() / sqrt(len(values))
    assert abs(values.mean()) < 3 * error and (values < 0).any()  # unbiased, so not always above zero


@settings(deadline=None)
@given(st.permutations(range(5)), st.permutations(range(3)))
def test_the_order_of_draws_and_of_numbers_does_not_matter(draws, numbers):
    x, y = normal(5, 2, size=(3,)), normal(5, 2, size=(3,), seed=1)
    moved = energy_distances(x[list(draws)][..., list(numbers)], y[..., list(numbers)])
    torch.testing.assert_close(moved, energy_distances(x, y))


def test_it_sees_a_spread_that_the_mean_does_not():
    wide, narrow = normal(100, 50), normal(100, 50, scale=0.5, seed=1)
    found = distance(narrow, wide)
    assert found.low > 0.05 and found.shift < 0.05
    assert found.spread == pytest.approx(0.5, rel=0.05)


def test_the_mean_shift_leaves_out_what_few_draws_alone_would_give():
    assert mean_shift(normal(4, 4000), normal(4, 4000, seed=1)) < 0.2  # without the correction .71
    assert mean_shift(normal(4, 4000, shift=3.0), normal(4, 4000, seed=1)) == pytest.approx(3.0, rel=0.01)


def test_a_policy_without_spread_has_no_spread_ratio():
    assert spread_ratio(normal(4), torch.zeros(4, 3, 1, 1)) != spread_ratio(normal(4), torch.zeros(4, 3, 1, 1))  # NaN


def test_the_interval_holds_the_mean_and_narrows_with_observations():
    few, many = (bootstrap(torch.randn(n, generator=torch.Generator().manual_seed(0))) for n in (20, 2000))
    assert few[0] < 0 < few[1] and many[1] - many[0] < 0.3 * (few[1] - few[0])
    assert bootstrap(torch.ones(5)) == (1.0, 1.0)
