"""What a sampler reads is swapped for the time of one call and no longer."""

from __future__ import annotations

import pytest
import torch

from bac.caching.interceptors.patch import put_on, take_off
from bac.errors import ScheduleError
from bac.solvers import Multistep
from bac.solvers.interceptor import SolverInterceptor, scheduler_swaps, swaps_for
from tests.bac.solvers.samplers import HALF, Sampler, ddim, host_of, trained

ONE_STEP = Multistep(((0.0, 0.0, 3.0),))  # three times the sample, whatever is predicted


@pytest.fixture
def sampler():
    return Sampler(ddim(HALF, (3, 2)).scheduler(trained(), (3, 2)), torch.ones(1))


def test_a_call_sees_the_solver_and_between_calls_the_sampler_has_its_own(sampler):
    before, own = dict(vars(sampler)), sampler.run()
    host = host_of(sampler)
    put_on(sampler, "run", SolverInterceptor(swaps_for(host, ONE_STEP, (2,), 1)))
    assert sampler.run().item() == 3.0
    assert {name: value for name, value in vars(sampler).items() if name != "run"} == before
    take_off(sampler, "run")
    assert vars(sampler) == before
    assert torch.equal(sampler.run(), own)


def test_a_call_that_raises_puts_the_own_values_back(sampler):
    before = dict(vars(sampler))
    put_on(sampler, "run", SolverInterceptor(swaps_for(host_of(sampler), ONE_STEP, (2,), 1)))
    sampler.start = None
    with pytest.raises(TypeError):
        sampler.run()
    take_off(sampler, "run")
    sampler.start = before["start"]
    assert vars(sampler) == before


def test_what_the_user_sets_between_calls_stays(sampler):
    put_on(sampler, "run", SolverInterceptor(swaps_for(host_of(sampler), ONE_STEP, (2,), 1)))
    other = ddim(HALF, (3,)).scheduler(trained(), (3,))
    sampler.noise_scheduler, sampler.num_inference_steps = other, 1
    assert sampler.run().item() == 3.0
    assert (sampler.noise_scheduler, sampler.num_inference_steps) == (other, 1)


def test_it_says_what_it_swaps_in(sampler):
    scheduler = ONE_STEP.scheduler(trained(), (2,))
    interceptor = SolverInterceptor(scheduler_swaps(host_of(sampler), scheduler, 1))
    assert str(interceptor) == ("swaps in for the call: noise_scheduler = MultistepScheduler, num_inference_steps = 1")


def test_a_number_of_steps_of_its_own_is_swapped_where_the_sampler_reads_it(sampler):
    host = host_of(sampler, takes_solvers=False, num_steps=2, num_steps_at=(sampler, "num_inference_steps"))
    (swap,) = swaps_for(host, None, (), 1)
    assert (swap.owner, swap.attribute, swap.value) == (sampler, "num_inference_steps", 1)
    assert [swap.value for swap in swaps_for(host, None, (), 2)] == [2]  # its own number now, but for how long?
    assert swaps_for(host, None, (), None) == ()


def test_what_a_sampler_does_not_take_is_refused_with_what_to_do(sampler):
    host = host_of(sampler, takes_solvers=False, num_steps=2)
    with pytest.raises(
        ScheduleError, match=r"cannot be replaced .*got fitted multistep; .*bac\.wrap\(policy, schedule"
    ):
        swaps_for(host, ONE_STEP, (2,), 1)
    with pytest.raises(ScheduleError, match=r"reads its number of denoising steps, 2; configure it for 1 yourself"):
        swaps_for(host, None, (), 1)
