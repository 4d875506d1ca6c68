"""What the fit finds, what it is fitted on, and that it leaves the policy as it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bac.errors import ScheduleError
from bac.solvers import Fitter, recorded
from bac.solvers.fitting import END, solve
from bac.solvers.interceptor import scheduler_swaps, swapped
from tests.bac.solvers.samplers import ddim, dense, host_of

ALPHAS, GRID = torch.linspace(0.95, 0.05, 10), tuple(range(9, -1, -1))


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_target_that_is_a_sum_of_the_terms_is_found(coefficients):
    terms = [torch.tensor([row], dtype=torch.float64) for row in ((1.0, 0, 0, 2), (0, 1.0, 0, 1), (0, 0, 1.0, 1))]
    target = sum(c * term for c, term in zip(coefficients, terms, strict=True))
    assert solve(terms, target, (0.0, 0.0), ridge=1e-12) == pytest.approx(coefficients, abs=1e-6)


def test_where_the_terms_do_not_say_it_is_ddim():
    nothing = [torch.zeros(1, 4)] * 3
    assert solve(nothing, torch.ones(1, 4), (0.8, 0.6)) == pytest.approx((0.8, 0.6, 0.0))


def test_one_observation_that_went_elsewhere_decides_less_than_its_square():
    """Nine say that the target is the term, the tenth that it is twenty times the term: least squares says 2.9."""
    ones = torch.ones(10, 1)
    target = torch.tensor([1.0] * 9 + [20.0])[:, None]
    assert solve([ones, 0 * ones], target, (0.0, 0.0))[0] < 2.0 < (target.mean().item())


def fitted_and_even(timesteps=(9, 6, 3), rows=64):
    """Few fitted steps, few DDIM steps and all, on another noise than what was fitted on."""
    noise = torch.randn(2, rows, 3, generator=torch.Generator().manual_seed(0))
    sampler = dense(ALPHAS, GRID, noise[0])
    host = host_of(sampler)
    with recorded(host) as states:
        sampler.run()
    solver = Fitter(host, lambda: sampler.run(), states)(timesteps)
    sampler.start = noise[1]
    all_steps, found = sampler.run(), []
    for few in (solver, ddim(ALPHAS, timesteps)):
        scheduler = few.scheduler(sampler.noise_scheduler, timesteps)
        with swapped(host, scheduler_swaps(host, scheduler, len(timesteps))):
            found.append((sampler.run() - all_steps).square().mean().sqrt().item())
    return states, found


def test_a_dense_run_is_recorded_at_every_timestep_and_at_its_end():
    states, _ = fitted_and_even()
    assert sorted(states) == [END, *range(10)]


def test_a_run_of_another_solver_is_recorded_at_its_own_timesteps():
    sampler = dense(ALPHAS, GRID, torch.full((1, 3), 7.0))
    solver = ddim(ALPHAS, (9, 4))
    with recorded(host_of(sampler), solver, (9, 4)) as states:
        end = sampler.run()
    assert sorted(states) == [END, 4, 9]
    assert torch.equal(states[9], sampler.start) and torch.equal(states[END], end)


def test_on_a_linear_denoiser_few_fitted_steps_end_where_all_steps_end():
    """Half of the sample is noise at every step: the end is a multiple of the beginning, one coefficient says which."""
    _, (fitted, even) = fitted_and_even()
    assert fitted < 1e-3 * even and even > 0.01


@pytest.mark.parametrize("timesteps", [(9, 4, 7), (9, 9), (10, 3)])
def test_timesteps_that_were_not_recorded_or_do_not_decrease_are_refused(timesteps):
    fitter = Fitter(None, print, dict.fromkeys([END, *range(10)], torch.zeros(1)))
    with pytest.raises(ScheduleError, match="must decrease, and be some of the 10 of the recorded run"):
        fitter(timesteps)


def test_recording_and_fitting_leave_the_policy_as_it_was():
    sampler = dense(ALPHAS, GRID, torch.ones(1, 3))
    host, own = host_of(sampler), dict(vars(sampler))
    names = set(vars(sampler.noise_scheduler))
    with recorded(host) as states:
        sampler.run()
    Fitter(host, lambda: sampler.run(), states)((9, 3))
    assert vars(sampler) == own
    assert set(vars(sampler.noise_scheduler)) == names


def test_a_run_that_fails_while_it_is_recorded_or_fitted_leaves_no_trace():
    sampler = dense(ALPHAS, GRID, torch.ones(1, 3))
    host, own, names = host_of(sampler), dict(vars(sampler)), set(vars(sampler.noise_scheduler))

    def fail():
        sampler.run()
        raise KeyError("camera")

    with pytest.raises(KeyError), recorded(host) as states:
        fail()
    with pytest.raises(KeyError):
        Fitter(host, fail, states)((9, 3))
    assert vars(sampler) == own
    assert set(vars(sampler.noise_scheduler)) == names
