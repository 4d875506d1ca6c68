import pytest

from bac.tuning import Budget, BudgetError


def test_a_rate_of_chunks_is_a_latency():
    assert Budget.of(target_hz=20).latency_s == 0.05


def test_a_chunk_may_take_as_long_as_it_lasts():
    assert Budget.of(control_hz=50, n_action_steps=8).latency_s == 8 / 50


def test_the_margin_is_kept_free():
    assert Budget.of(target_latency_s=0.1, margin=0.25).limit_s == pytest.approx(0.075)


def test_an_action_error_leaves_the_latency_free():
    budget = Budget.of(max_action_error=0.01)
    assert (budget.limit_s, budget.action_error) == (float("inf"), 0.01)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "exactly one of .* got none"),
        ({"target_hz": 5, "target_latency_s": 0.1}, "got target_latency_s, target_hz"),
        ({"control_hz": 10}, "needs n_action_steps"),
        ({"n_action_steps": 8}, "needs n_action_steps"),
        ({"target_hz": 0}, "target_hz: must be a number above 0, got 0"),
        ({"target_hz": float("nan")}, "target_hz: must be a number above 0, got nan"),
        ({"control_hz": 10, "n_action_steps": -1}, "n_action_steps: must be a number above 0"),
        ({"control_hz": 10, "n_action_steps": 0}, "n_action_steps: must be a number above 0, got 0"),
        ({"target_hz": 5, "margin": 1.0}, r"margin: must be in \[0, 1\)"),
    ],
)
def test_what_is_no_budget_is_refused(asked, message):
    with pytest.raises(BudgetError, match=message):
        Budget.of(**asked)
