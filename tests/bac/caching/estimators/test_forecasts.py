from __future__ import annotations

from math import exp

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bac.caching.estimators import BlockStep, Hold, Taylor
from bac.errors import ScheduleError
from bac.published import AdamsBashforth, Newton

UNEVEN = st.lists(st.integers(1, 5), min_size=4, max_size=6)


def run(estimator, values, updates, step):
    """The estimate at `step` after updates at these steps of a signal ``values(step)``."""
    state = None
    for update in updates:
        state = estimator.store(
            state, BlockStep("b", update), None, torch.tensor([values(update)], dtype=torch.float64)
        )
    return estimator.estimate(state, BlockStep("b", step), None).item()


def steps_of(gaps):
    return [sum(gaps[:i]) for i in range(len(gaps))]


def test_hold_returns_the_last_output():
    assert run(Hold(), lambda t: t**2, (0, 3), 5) == 9.0


def test_the_first_order_follows_the_line_through_the_last_two_updates():
    # 4 at step 2, 10 at step 5: 2 a step, so 16 at step 8.
    for estimator in (Taylor(1), Newton(1)):
        assert run(estimator, {0: 7.0, 2: 4.0, 5: 10.0}.get, (0, 2, 5), 8) == pytest.approx(16.0)


def test_after_one_update_every_forecast_is_plain_reuse():
    for estimator in (Taylor(3), Newton(2), AdamsBashforth(2)):
        assert run(estimator, lambda t: t + 3.0, (0,), 4) == 3.0


def test_taylor_is_the_published_recurrence_with_the_last_gap():
    # D1 = (25 - 4) / 3 = 7, before: (4 - 0) / 2 = 2, D2 = (7 - 2) / 3; at distance 3: 25 + 21 + 5 / 3 * 9 / 2.
    assert run(Taylor(2), lambda t: t**2.0, (0, 2, 5), 8) == pytest.approx(25 + 21 + 7.5)


@pytest.mark.slow
def test_taylor_equals_diffusers_where_it_is_installed():
    pytest.importorskip("diffusers")
    from diffusers.hooks.taylorseer_cache import TaylorSeerState

    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(12, 3, 5, generator=generator)
    for order in (0, 1, 2, 3):
        theirs = TaylorSeerState(torch.float32, max_order=order)
        ours, state = Taylor(order) if order else Hold(), None
        for step in range(12):
            theirs.current_step = step
            if step in (0, 1, 2, 5, 7, 10):
                theirs.update((outputs[step],))
                state = ours.store(state, BlockStep("b", step), None, outputs[step])
            else:
                expected = theirs.predict()[0]
                assert torch.allclose(ours.estimate(state, BlockStep("b", step), None), expected, atol=2e-5)


@given(UNEVEN, st.integers(1, 3), st.lists(st.floats(-2, 2), min_size=4, max_size=4), st.integers(1, 4))
def test_forecasts_of_order_p_are_exact_on_polynomials_of_degree_p(gaps, order, coefficients, ahead):
    def polynomial(t):
        return sum(c * (t / 10) ** power for power, c in enumerate(coefficients[: order + 1]))

    updates = steps_of(gaps)
    rules = [Newton(order)] + ([AdamsBashforth(order)] if order + 2 <= len(updates) else [])
    for rule in rules:
        step = updates[-1] + ahead
        assert run(rule, polynomial, updates, step) == pytest.approx(polynomial(step), abs=1e-8)


@given(UNEVEN, st.integers(1, 4))
def test_taylor_is_exact_on_lines(gaps, ahead):
    updates = steps_of(gaps)
    for order in (1, 2, 3):
        assert run(Taylor(order), lambda t: 3.0 - 2.0 * t, updates, updates[-1] + ahead) == pytest.approx(
            3.0 - 2.0 * (updates[-1] + ahead), abs=1e-9
        )


def test_the_tangent_is_closer_to_a_parabola_than_the_secant():
    # t^2 at 2 beyond 4, last gap 2: the secant misses h (h + g) = 8, the tangent h^2 = 4.
    assert run(Newton(1), lambda t: t**2.0, (0, 2, 4), 6) == pytest.approx(36 - 8)
    assert run(AdamsBashforth(1), lambda t: t**2.0, (0, 2, 4), 6) == pytest.approx(36 - 4)


def test_another_axis_than_the_index_of_the_step():
    # Exponential in the step, a line along times that are exponential in the step.
    times = tuple(exp(-step / 5) for step in range(10))
    rule = Newton(1, times)
    assert run(rule, lambda t: 2 * exp(-t / 5) - 1, (0, 3, 4), 8) == pytest.approx(2 * times[8] - 1)
    assert rule.name == "newton-1-timestep"


def test_what_cannot_be_is_refused():
    with pytest.raises(ScheduleError, match="for 0 take Hold"):
        Newton(0)
    with pytest.raises(ScheduleError, match="Taylor takes 1, 2 or 3, got 4"):
        Taylor(4)
    with pytest.raises(ScheduleError, match="two denoising steps lie at the same time"):
        Newton(1, (3.0, 2.0, 2.0))
