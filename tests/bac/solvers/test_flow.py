"""The arithmetic of solvers within a flow-matching loop, on denoisers whose flow is known."""

from __future__ import annotations

import pytest
import torch

from bac.adapters.flow import Flow
from bac.errors import RunError, ScheduleError
from bac.solvers import AdamsBashforth, Multistep, solver_interceptor
from bac.solvers.flow import FlowRun
from tests.bac.solvers.samplers import HALF, Sampler, ddim, host_of, trained

EULER, SECOND = AdamsBashforth(1), AdamsBashforth(2)
FALLING, RISING = Flow(), Flow(rising=True)


def run_of(flow, times, rows):
    run = FlowRun(flow, times, rows)
    run.begin()
    return run


def loop(run, flow, x, velocity, num_steps):
    """The loop of a policy: its own even steps, which it never changes."""
    own = flow.own_times(num_steps)
    for here, after in zip(own, own[1:], strict=False):
        run.see(x)
        x = x + (after - here) * run.answer(velocity(x, run.time))
    return x


def test_a_step_is_the_sum_of_its_terms_by_hand():
    run = run_of(FALLING, (0.5,), ((2.0, 3.0, 7.0),))
    run.see(torch.tensor([[10.0]]))
    # v = 4 at t = 0.5: clean = 10 - 2 = 8, noise = 10 + 2 = 12, next = 16 + 36 + 70 = 122; the loop's one step is -1.
    assert run.answer(torch.tensor([[4.0]])).item() == (122 - 10) / -1


def test_a_policy_that_counts_the_other_way_is_the_same_with_the_other_sign():
    run = run_of(RISING, (0.5,), ((2.0, 3.0, 7.0),))
    assert run.times == (0.5,) and run_of(RISING, (0.8,), ((1.0, 0.0, 0.0),)).times == (pytest.approx(0.2),)
    run.see(torch.tensor([[10.0]]))
    assert run.answer(torch.tensor([[-4.0]])).item() == 122 - 10


def test_the_second_step_knows_the_first():
    run = run_of(FALLING, (1.0, 0.5), ((0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0, 10.0)))
    run.see(torch.tensor([[3.0]]))
    run.answer(torch.tensor([[2.0]]))  # at t = 1: clean 1, noise 3
    run.see(torch.tensor([[0.0]]))
    assert run.answer(torch.tensor([[0.0]])).item() == (1 * 1 + 10 * 3) / -0.5


@pytest.mark.parametrize("flow", [FALLING, RISING])
def test_where_the_velocity_is_constant_every_solver_ends_at_the_same_actions(flow):
    """The flow of one single action: v = noise - action, wherever it is asked."""
    noise, action = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 0.25]])
    v = (noise - action) * (-1 if flow.rising else 1)
    for solver in (EULER, SECOND):
        times = (1.0, 0.37, 0.061)
        found = loop(run_of(flow, times, solver.rows(times)), flow, noise, lambda x, t: v, 3)
        torch.testing.assert_close(found, action)


def test_the_second_order_is_exact_where_the_velocity_changes_evenly():
    """dx/dt = 2 t: from x = 1 at t = 1 to x = 0 at t = 0. Two exact steps after a first one of Euler's."""
    times = (1.0, 0.6, 0.3)
    run = run_of(FALLING, times, SECOND.rows(times))
    found = loop(run, FALLING, torch.tensor([[1.0]]), lambda x, t: torch.full_like(x, 2 * t), 3)
    first = 1 - 0.4 * 2.0  # Euler's error of the first step stays
    assert found.item() == pytest.approx(first - 0.6**2, abs=1e-6)


def test_eulers_rows_are_eulers_steps():
    assert EULER.rows((1.0, 0.75)) == ((0.25, -0.25, 1.0), (0.75, -0.75, 1.0, 0.0, 0.0))


def test_trap_4_terms_of_bfloat16_samples_are_computed_in_float32():
    rows, x, v = ((64.0, 64.0, 1.0),), torch.tensor([[1.0]]), torch.tensor([[1.0078125]])  # both are bfloat16's
    run = run_of(FALLING, (0.3,), rows)
    exact = run.advance(x, v)
    run = run_of(FALLING, (0.3,), rows)
    assert torch.equal(run.advance(x.bfloat16(), v.bfloat16()), exact)
    clean, noise = x.bfloat16() - 0.3 * v.bfloat16(), x.bfloat16() + 0.7 * v.bfloat16()
    assert (64 * clean + 64 * noise + x.bfloat16() - exact).abs() > 0.1  # where terms are rounded


def test_trap_6_buckets_of_times_are_solved_with_at_their_own():
    flow = Flow(rising=True, buckets=10)
    run = run_of(flow, (0.83, 0.2), (((1.0, 0.0, 0.0)), (1.0, 0.0, 0.0, 0.0, 0.0)))
    assert run.times == (1, 8)  # 0.17 and 0.8, rounded down; not 7, although 1 - 0.2 < 0.8
    assert run.noise == (0.9, pytest.approx(0.2))
    with pytest.raises(ScheduleError, match="two are the same to the denoiser, which knows 10 times"):
        FlowRun(flow, (0.83, 0.82), EULER.rows((0.83, 0.82)))


@pytest.mark.parametrize("times", [(91, 47), (1.5,), (0,)])
def test_trap_3_no_evaluation_without_noise(times):
    with pytest.raises(ScheduleError, match=r"shares of noise in \(0, 1\].*where a denoiser was never trained"):
        FlowRun(FALLING, times, EULER.rows(times))


def test_trap_7_channels_predicted_on_another_scale_are_passed_on_as_predicted_last():
    """The gripper is channel 1: a logit of 40 then -30, which the loop must neither mix nor scale."""
    flow = Flow(clean=True, as_predicted=(1,))
    run = run_of(flow, (0.8, 0.2), ((0.5, 0.5, 0.0), (0.9, 0.0, 0.1, 0.0, 0.0)))
    first = torch.tensor([[1.0, 1.0]])
    run.see(first)
    mixed = 0.5 * first + 0.5 * run.answer(torch.tensor([[0.25, 40.0]]))  # the loop's next time is 0.5
    noise = (1 - 0.2 * 0.25) / 0.8
    assert mixed[0, 0].item() == pytest.approx(0.5 * 0.25 + 0.5 * noise)
    run.see(mixed)
    last = run.answer(torch.tensor([[0.75, -30.0]]))
    assert last.tolist() == [[pytest.approx(0.9 * 0.75 + 0.1 * mixed[0, 0].item()), -30.0]]


def test_an_output_may_be_flat_or_the_end_of_a_longer_sequence():
    x, v = torch.ones(2, 3, 5), torch.arange(30.0).view(2, 3, 5)
    rows = EULER.rows((1.0,))
    for output, back in (
        (v.view(2, 15), lambda t: t.view(2, 3, 5)),
        (v.view(6, 5), lambda t: t.view(2, 3, 5)),
        (torch.cat([torch.full((2, 4, 5), 9.0), v], 1), lambda t: t[:, 4:]),
    ):
        run = run_of(FALLING, (1.0,), rows)
        run.see(x)
        answer = run.answer(output)
        assert answer.shape == output.shape
        torch.testing.assert_close(back(answer), v)


def test_steps_are_counted_and_another_number_of_them_is_an_error():
    run = run_of(FALLING, (0.8, 0.2), EULER.rows((0.8, 0.2)))
    x = torch.ones(1, 1)
    with pytest.raises(RunError, match="made 0 steps and the solver is for 2"):
        run.check_complete()
    for _ in range(2):
        run.see(x)
        run.answer(x)
    run.check_complete()
    with pytest.raises(RunError, match="makes more than the 2 steps"):
        run.answer(x)


def test_gradients_pass_through_it_as_through_the_loop():
    """v = 3 x: a step of Euler's from t to u multiplies by 1 - 3 (t - u), and one of the loop's is never made."""
    x = torch.ones(1, 1, requires_grad=True)
    end = loop(run_of(FALLING, (0.8, 0.2), EULER.rows((0.8, 0.2))), FALLING, x, lambda x, t: 3 * x, 2)
    (slope,) = torch.autograd.grad(end.sum(), x)
    assert slope.item() == pytest.approx((1 - 3 * 0.6) * (1 - 3 * 0.2), abs=1e-6)


def test_nothing_of_a_run_outlives_it():
    run = run_of(FALLING, (0.8, 0.2), EULER.rows((0.8, 0.2)))
    run.see(torch.ones(1, 1))
    run.answer(torch.ones(1, 1))
    run.end()
    assert not [value for value in vars(run).values() if isinstance(value, torch.Tensor)]
    assert run._before == ()


def test_a_diffusion_policy_takes_no_shares_of_noise_and_no_euler():
    host = host_of(Sampler(ddim(HALF, (3, 2)).scheduler(trained(), (3, 2)), torch.ones(1)))
    with pytest.raises(ScheduleError, match="they are whole numbers, those of its training"):
        solver_interceptor(host, Multistep(((0.0, 0.0, 3.0),)), (0.8,), 1)
    with pytest.raises(ScheduleError, match="Euler is for flow-matching policies"):
        solver_interceptor(host, EULER, (3,), 1)
