"""The fit of few-step solvers to flow-matching policies, on a flow that is known in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bac.adapters import find_host
from bac.adapters.flow import Flow, place
from bac.caching.interceptors.patch import interceptors
from bac.errors import ScheduleError
from bac.solvers import AdamsBashforth, Multistep
from bac.solvers.flow_fitting import GRID, FlowFitter, start

WIDTH = 0.3  # standard deviation of the actions


class Head(nn.Module):
    """The exact flow of actions that are normally distributed: mean `observed`, standard deviation `WIDTH`."""

    calls = 0

    def forward(self, observed: Tensor, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        t = t[:, None]
        variance = t**2 + (1 - t) ** 2 * WIDTH**2
        away = x - (1 - t) * observed
        clean = observed + (1 - t) * WIDTH**2 / variance * away
        noise = t / variance * away
        return noise - clean


class Forking(Head):
    """The exact flow of actions around `observed` - 1 or + 1: a run decides for one of them."""

    def forward(self, observed: Tensor, x: Tensor, t: Tensor) -> Tensor:
        low, high = (super(Forking, self).forward(observed + side, x, t) for side in (-1.0, 1.0))
        t = t[:, None]
        variance = t**2 + (1 - t) ** 2 * WIDTH**2
        right = torch.sigmoid(2 * (1 - t) * (x - (1 - t) * observed) / variance)
        return right * high + (1 - right) * low


class Policy(nn.Module):
    """LeRobot's loop around the head."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.num_steps = Head(), 10

    def reset(self) -> None:
        pass

    def sample(self, observed: Tensor, x: Tensor) -> Tensor:
        for step in range(self.num_steps):
            time = torch.full((len(x),), 1 - step / self.num_steps)
            x = x - self.head(observed, x, time) / self.num_steps
        return x

    def predict_action_chunk(self, batch: Tensor) -> Tensor:
        return self.sample(batch, torch.randn(batch.shape))

    def described(self) -> Flow:
        return Flow((place(self.head, sample="x", time="t", answers=True),), num_steps_at=(self, "num_steps"))


def fitter_of(policy: Policy, rows: int = 32, splits: int = 1, **options: Any) -> FlowFitter:
    """A fitter on some observations, all in one run or in several."""
    observed = torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))
    host = find_host(policy.eval(), flow=policy.described())

    def run() -> None:
        torch.manual_seed(0)
        for part in observed.chunk(splits):
            policy.predict_action_chunk(part)

    return FlowFitter(host, run, **options)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5])
def test_a_flow_that_is_linear_is_fitted_exactly_with_any_number_of_steps(num_steps):
    fitter = fitter_of(Policy())
    assert fitter.fit(start(num_steps)).error < 1e-5 < 1e-2 < fitter.at(AdamsBashforth(1), start(num_steps)).error


def test_trap_2_at_the_same_times_the_closed_form_beats_euler_and_at_even_ones_it_loses():
    policy = Policy()
    policy.head = Forking()
    fitter, late, even, euler = fitter_of(policy), (0.8, 0.2, 0.05), (1.0, 0.67, 0.33), AdamsBashforth(1)
    found = {name: fitter.at(euler, times).typical_error for name, times in (("late", late), ("even", even))}
    found |= {"fitted": fitter.fit(late).typical_error, "fitted even": fitter.fit(even).typical_error}
    assert 5 * found["fitted"] < found["late"] and 5 * found["fitted even"] < found["even"]
    assert found["fitted"] < found["fitted even"]


def test_the_fine_run_is_the_flow_itself():
    """The exact end: the noise, scaled to the actions' width, around their mean."""
    policy = Policy()
    fitter = fitter_of(policy)
    torch.manual_seed(0)
    noise = torch.randn(32, 3)
    observed = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
    exact = observed + WIDTH * noise
    assert (fitter._reference.last - exact).abs().max() < 2e-3
    policy.num_steps = 100
    assert (fitter._reference.last - exact).square().mean() < 0.1 * (
        policy.sample(observed, noise) - exact
    ).square().mean()


def test_the_errors_of_a_fit_are_those_of_its_runs():
    fitter = fitter_of(Policy())
    fit = fitter.fit((0.8, 0.2, 0.05))
    assert fit.errors.shape == (32,)
    torch.testing.assert_close(fitter.at(fit.solver, fit.times).errors, fit.errors, rtol=1e-3, atol=1e-6)


def test_observations_in_several_runs_are_fitted_together():
    together, apart = fitter_of(Policy()), fitter_of(Policy(), splits=4)
    times = (0.8, 0.2, 0.05)
    one, other = together.fit(times), apart.fit(times)
    torch.manual_seed(0)
    torch.testing.assert_close(torch.tensor(other.errors.shape), torch.tensor(one.errors.shape))
    for row, its in zip(one.solver.coefficients, other.solver.coefficients, strict=True):
        assert row == pytest.approx(its, abs=0.05)  # on other draws of noise
    assert apart.at(other.solver, times).error == pytest.approx(other.error, abs=1e-5)


def test_evaluations_are_few_and_counted():
    policy = Policy()
    fitter = fitter_of(policy)
    assert fitter.num_evaluations == policy.head.calls == 100
    fitter.fit((0.8, 0.2, 0.05))
    assert fitter.num_evaluations == policy.head.calls == 103


def test_a_search_is_no_worse_than_its_start_and_stays_on_the_grid():
    fitter = fitter_of(Policy())
    for make in (fitter.fit, lambda times: fitter.at(AdamsBashforth(1), times)):
        found = fitter.search(make, 3, max_evaluations=20)
        assert found.typical_error <= make(start(3)).typical_error
        assert set(found.times) <= set(GRID) and list(found.times) == sorted(found.times, reverse=True)


def test_fitting_leaves_the_policy_as_it_was_also_when_a_run_fails():
    policy = Policy().eval()
    before = dict(vars(policy.head)), sorted(vars(policy))
    fitter = fitter_of(policy)
    fitter._run = lambda: policy.predict_action_chunk(torch.zeros(2, 3, 4, 5))
    with pytest.raises(RuntimeError):
        fitter.fit((0.8, 0.2))
    assert not list(interceptors(policy)) and policy.num_steps == 10
    vars(policy.head).pop("calls"), before[0].pop("calls", None)
    assert (dict(vars(policy.head)), sorted(vars(policy))) == before


def test_times_between_those_of_the_reference_lie_on_its_straight_lines():
    fitter = fitter_of(Policy(), own=True)
    samples = [fitter._reference.sample_at(time) for time in (0.5, 0.45, 0.4)]
    torch.testing.assert_close(samples[1], (samples[0] + samples[2]) / 2)
    last = fitter._reference.last
    torch.testing.assert_close(
        fitter._reference.sample_at(0.025), 0.25 * fitter._reference.sample_at(0.1) + 0.75 * last
    )


def test_trap_1_the_policys_own_steps_are_another_reference_and_a_fit_to_them_copies_them():
    policy = Policy()
    fitter = fitter_of(policy, own=True)
    torch.manual_seed(0)
    own = policy.predict_action_chunk(torch.randn(32, 3, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(fitter._reference.last, own, rtol=1e-5, atol=1e-6)
    assert fitter.num_evaluations == 10 and fitter.fit((0.8, 0.2, 0.05)).error < 1e-5


def test_a_policy_without_such_a_loop_is_refused():
    policy = Policy()
    host = find_host(policy, flow=policy.described())
    from dataclasses import replace

    with pytest.raises(ScheduleError, match=r"Policy: only a flow-matching policy .*bac.wrap\(policy, what, flow="):
        FlowFitter(replace(host, flow=None), print)


def test_trap_7_channels_on_another_scale_take_no_part_in_the_fit():
    """Channel 2 is a logit of 1000 at every step; the other two are fitted as if it were not there."""

    class Clean(Head):
        def forward(self, observed: Tensor, x: Tensor, t: Tensor) -> Tensor:
            v = super().forward(observed, x, t)
            clean = x - t[:, None] * v
            return torch.cat([clean[:, :2], torch.full_like(clean[:, 2:], 1000.0)], 1)

    policy = Policy()
    policy.head = Clean()

    def sample(observed: Tensor, noise: Tensor) -> Tensor:
        action = torch.zeros_like(noise)
        for step in range(policy.num_steps):
            t = torch.full((len(noise),), 1 - step / policy.num_steps)
            action = policy.head(observed, noise * t[:, None] + action * (1 - t)[:, None], t)
        return action

    policy.sample = sample
    described = Flow(
        (place(policy.head, sample="x", time="t", answers=True),), clean=True, as_predicted=(2,),
        num_steps_at=(policy, "num_steps"),
    )  # fmt: skip
    policy.described = lambda: described
    fit = fitter_of(policy).fit((0.8, 0.2, 0.05))
    assert isinstance(fit.solver, Multistep) and fit.error < 1e-3
