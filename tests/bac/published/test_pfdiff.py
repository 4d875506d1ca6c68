"""PFDiff: its steps and evaluations by hand, what it reduces to, and its order on Gaussian data."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bac
from bac.errors import ScheduleError
from bac.published import PFDiff
from bac.published.pfdiff import Leg, ddim
from bac.solvers import Solver
from tests.bac.published.gaussian import error, ratios_of, run
from tests.bac.solvers.samplers import ddim as plain
from tests.bac.solvers.samplers import trained

PAPER = ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3))


def test_every_second_step_of_the_grid_is_evaluated():
    solver = PFDiff((90, 70, 50, 40, 30, 20, 10))
    assert isinstance(solver, Solver)
    assert solver.legs == (Leg(0, 0, 1), Leg(1, 2, 3), Leg(3, 4, 5), Leg(5, 6, 7))
    assert solver.timesteps == (90, 50, 30, 10)
    assert bac.Denoising(solver, solver.timesteps).num_evaluations == 4


def test_the_springboard_is_h_steps_ahead_and_k_steps_are_skipped():
    assert PFDiff(tuple(range(9, -1, -1)), 2, 2).legs == (Leg(0, 0, 1), Leg(1, 3, 4), Leg(4, 6, 7), Leg(7, 9, 10))
    assert PFDiff(tuple(range(9, 0, -1)), 3, 3).legs == (Leg(0, 0, 1), Leg(1, 4, 5), Leg(5, 8, 9))


@pytest.mark.parametrize("left, last", [(1, Leg(1, 1, 2)), (2, Leg(1, 2, 3)), (3, Leg(1, 2, 4)), (4, Leg(1, 3, 5))])
def test_a_step_that_the_grid_cuts_off_is_shorter_as_in_the_official_code(left, last):
    assert PFDiff(tuple(range(left, -1, -1)), 3, 2).legs == (Leg(0, 0, 1), last)


@given(st.sets(st.integers(0, 99), min_size=1), st.sampled_from(PAPER))
def test_its_steps_join_and_reach_the_end_at_the_least_number_of_evaluations(grid, kind):
    solver = PFDiff(tuple(sorted(grid, reverse=True)), *kind)
    assert [leg.start for leg in solver.legs] == [0, *(leg.stop for leg in solver.legs)][:-1]
    assert solver.legs[-1].stop == len(grid)
    assert all(leg.start <= leg.evaluated < leg.stop for leg in solver.legs)
    assert bac.Denoising(solver, solver.timesteps).num_evaluations == 1 + math.ceil((len(grid) - 1) / (kind[0] + 1))


@pytest.mark.parametrize("skips, springboard", PAPER)
def test_even_grids_cost_what_they_say(skips, springboard):
    for num_evaluations in (1, 2, 4, 6):
        solver = PFDiff.even(num_evaluations, 100, skips=skips, springboard=springboard)
        assert len(solver.timesteps) == num_evaluations
        assert solver.grid[0] == 99
    assert PFDiff.even(4, 100).grid == (99, 82, 66, 49, 33, 16, 0)  # 99 in six intervals, rounded down


def test_by_hand():
    """At ratios 4, 3, 2, 1 and 0 of noise to clean actions, with a denoiser that says 1, then 10, then 100.

    To ratio 3 with noise 1. From there ahead to 2, still with 1; there the noise is 10, which makes the step from 3 to
    1. The last step is alone: it starts and is evaluated at 1.
    """
    solver = PFDiff((3, 2, 1, 0))
    scheduler = solver.scheduler(trained(ratios_of([1.0, 2.0, 3.0, 4.0])), solver.timesteps)
    share = {ratio: 1 / math.sqrt(1 + ratio**2) for ratio in (4, 3, 2, 1)}
    assert scheduler.timesteps.tolist() == [3, 1, 0]
    start = 7.0  # in units of clean actions
    ahead = scheduler.step(torch.tensor([1.0]), 3, torch.tensor([start * share[4]])).prev_sample
    assert ahead.item() == pytest.approx((7 - 1 - 1) * share[2])
    reached = scheduler.step(torch.tensor([10.0]), 1, ahead).prev_sample
    assert reached.item() == pytest.approx((7 - 1 - 2 * 10) * share[1], abs=1e-5)
    assert scheduler.step(torch.tensor([100.0]), 0, reached).prev_sample.item() == pytest.approx(-14 - 100, abs=1e-4)


def written_out(grid, skips, springboard, alphas, start, denoiser) -> torch.Tensor:
    """The paper's loop, in units of clean actions: DDIM goes straight from one ratio of noise to the next."""
    ratios = [math.sqrt(1 / float(alphas[timestep]) - 1) for timestep in grid] + [0.0]

    def score(scaled, place):
        return denoiser(scaled / math.sqrt(1 + ratios[place] ** 2), float(grid[place]))

    scaled = start * math.sqrt(1 + ratios[0] ** 2)
    past = score(scaled, 0)
    scaled = scaled + (ratios[1] - ratios[0]) * past
    for here in range(1, len(grid), skips + 1):
        ahead, there = here + springboard, here + skips + 1
        future = score(scaled + (ratios[ahead] - ratios[here]) * past, ahead)
        scaled, past = scaled + (ratios[there] - ratios[here]) * future, future
    return scaled


@pytest.mark.parametrize("skips, springboard", PAPER)
def test_it_is_the_paper_s_loop(skips, springboard):
    solver = PFDiff(tuple(range(97, 97 - 7 * 13, -7)), skips, springboard)  # 13 steps: any number of skips divides
    alphas = torch.linspace(0.99, 0.01, 100, dtype=torch.float64)
    start = torch.tensor([[0.3, -2.0, 5.0]]).double()

    def denoiser(sample, timestep):
        return (sample + timestep / 50).sin()

    found = run(solver.scheduler(trained(alphas), solver.timesteps), start, denoiser)
    torch.testing.assert_close(found, written_out(solver.grid, skips, springboard, alphas, start, denoiser))


@pytest.mark.parametrize("skips, springboard", PAPER)
def test_with_a_constant_score_it_is_ddim_on_any_grid(skips, springboard):
    solver = PFDiff((90, 77, 60, 51, 33, 20, 8, 3), skips, springboard)
    alphas = torch.linspace(0.99, 0.01, 100, dtype=torch.float64)
    start, noise = torch.tensor([[0.3, -2.0, 5.0]]).double(), torch.tensor([[1.0, -0.5, 0.2]]).double()
    ends = [
        run(each.scheduler(trained(alphas), timesteps), start, lambda *_: noise)
        for each, timesteps in ((solver, solver.timesteps), (plain(alphas, solver.grid), solver.grid))
    ]
    torch.testing.assert_close(*ends)


def test_one_evaluation_is_one_step_of_ddim():
    solver = PFDiff.even(1, 4)
    scheduler = solver.scheduler(trained(), solver.timesteps)
    found = scheduler.step(torch.tensor([0.25]), 3, torch.tensor([1.0])).prev_sample
    assert found.item() == pytest.approx((1 - math.sqrt(0.5) * 0.25) / math.sqrt(0.5))


def test_clean_actions_are_clipped_in_every_step():
    assert ddim(torch.tensor([5.0]), torch.tensor([1.0]), (0.6, 0.8), (0.8, 0.6), 2.0).item() == pytest.approx(2.2)


@pytest.mark.parametrize("skips, springboard", PAPER)
def test_it_is_of_second_order_where_the_springboard_is_in_the_middle_of_the_step(skips, springboard):
    """On the probability-flow ODE of Gaussian data, whose end is known. Elsewhere it is of first order, as DDIM is."""
    errors = [error(lambda grid: PFDiff(grid, skips, springboard), size) for size in (121, 241, 481)]
    order = 2 if 2 * springboard == skips + 1 else 1
    assert [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)] == pytest.approx([order] * 2, abs=0.25)


def test_ddim_is_of_first_order_there():
    errors = [error(None, size) for size in (121, 241, 481)]
    assert [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)] == pytest.approx([1, 1], abs=0.1)


@pytest.mark.parametrize("num_evaluations", [4, 6, 10])
def test_on_gaussian_data_its_error_is_a_tenth_of_ddim_s_of_as_many_evaluations(num_evaluations):
    assert error(PFDiff, 2 * num_evaluations - 1) < 0.1 * error(None, num_evaluations)


def test_a_run_forgets_the_one_before():
    solver = PFDiff((3, 2, 1, 0))
    scheduler = solver.scheduler(trained(torch.linspace(0.9, 0.1, 4)), solver.timesteps)
    start = torch.tensor([[0.5, -1.0]])
    first, second = (run(scheduler, start, lambda sample, _: sample.sin()) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("grid", [(), (3, 3), (1, 2), (2, -1)])
def test_a_grid_that_does_not_decrease_is_refused(grid):
    with pytest.raises(ScheduleError, match="grid: must be timesteps from 0 on, each below the one before"):
        PFDiff(grid)


@pytest.mark.parametrize("skips, springboard", [(1, 2), (2, 0), (0, 0)])
def test_a_springboard_beyond_the_skipped_steps_is_refused(skips, springboard):
    with pytest.raises(ScheduleError, match=rf"must be in \[1, skips\], got {springboard} with {skips} skips"):
        PFDiff((3, 2, 1), skips, springboard)


def test_a_run_of_no_evaluation_or_of_more_than_there_are_timesteps_is_refused():
    with pytest.raises(ScheduleError, match="num_evaluations: must be at least 1, got 0"):
        PFDiff.even(0, 100)
    with pytest.raises(ScheduleError, match="for fewer evaluations or skips"):
        PFDiff.even(30, 10)


def test_timesteps_that_are_not_its_own_are_refused():
    with pytest.raises(ScheduleError, match=r"PFDiff-1 on this grid evaluates at \(3, 1\), got \(3, 2\)"):
        bac.Denoising(PFDiff((3, 2, 1)), (3, 2))
    assert PFDiff((3, 2, 1), 2, 2).name == "PFDiff-2_2"
