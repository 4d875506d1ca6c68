from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bac.caching.schedulers.adaptive import update_steps
from bac.errors import ScheduleError
from bac.published.global_budget import allocate, global_budget_schedule, worth_curve
from tests.bac.statistics import calibration

NAMES = ["l0.self_attn", "l0.cross_attn", "l0.ffn"]


def similarities(seed, count, num_steps):
    values = np.random.default_rng(seed).uniform(-1, 1, (count, num_steps, num_steps))
    values = (values + values.transpose(0, 2, 1)) / 2
    values[:, range(num_steps), range(num_steps)] = 1.0
    return values


def worth(similarity, steps):
    ends = (*steps[1:], len(similarity))
    return sum(similarity[start, start:end].sum() for start, end in zip(steps, ends, strict=True))


@given(st.integers(0, 999), st.integers(1, 6))
def test_the_curve_is_what_acs_reaches_with_every_number_of_updates(seed, num_steps):
    (similarity,) = similarities(seed, 1, num_steps)
    curve = worth_curve(similarity)
    reached = [worth(similarity, update_steps(similarity, m)) for m in range(1, num_steps + 1)]
    assert curve == pytest.approx(reached)


@given(
    st.integers(0, 999),
    st.lists(st.sampled_from([1.0, 2.5, 0.7]), min_size=1, max_size=4),
    st.integers(1, 4),
    st.floats(0, 1),
)
def test_the_allocation_equals_brute_force(seed, costs, num_steps, share):
    curves = np.random.default_rng(seed).uniform(0, 5, (len(costs), num_steps))
    budget = sum(costs) * (1 + share * (num_steps - 1))
    chosen = allocate(curves, costs, budget)

    def total(updates):
        return sum(curve[m - 1] for curve, m in zip(curves, updates, strict=True))

    affordable = [
        updates
        for updates in product(range(1, num_steps + 1), repeat=len(costs))
        if np.dot(updates, costs) <= budget * (1 + 1e-12)
    ]
    assert chosen in affordable
    assert total(chosen) == pytest.approx(max(map(total, affordable)))


@given(st.integers(0, 999), st.integers(1, 6))
def test_never_worth_less_than_equal_budgets_at_no_more_cost(seed, num_updates):
    matrices = similarities(seed, 3, 6)
    statistics = calibration(dict(zip(NAMES, matrices, strict=True)), [0.0] * 3)
    schedule = global_budget_schedule(statistics, num_updates)
    assert schedule.num_updates_total <= 3 * num_updates
    equal = sum(worth(matrix, update_steps(matrix, num_updates)) for matrix in matrices)
    unequal = sum(worth(m, schedule.update_steps[name]) for name, m in zip(NAMES, matrices, strict=True))
    assert unequal >= equal - 1e-9


def test_a_block_that_never_changes_gives_its_updates_away():
    constant, restless = np.ones((5, 5)), np.eye(5)
    statistics = calibration({"l0.self_attn": constant, "l0.ffn": restless}, [0.0, 0.0])
    schedule = global_budget_schedule(statistics, 3)
    assert schedule.update_steps["l0.self_attn"] == (0,)
    assert schedule.update_steps["l0.ffn"] == (0, 1, 2, 3, 4)


def test_a_dear_block_gets_fewer():
    restless = np.eye(4)
    statistics = calibration({"l0.self_attn": restless, "l0.ffn": restless}, [0.0, 0.0])
    schedule = global_budget_schedule(statistics, 2, costs={"l0.self_attn": 1.0, "l0.ffn": 3.0})
    # 8 to spend, 4 on the first updates; three more cheap ones cost 3, one more dear one costs as much.
    assert [len(steps) for steps in schedule.update_steps.values()] == [4, 1]


def test_what_cannot_be_is_refused():
    statistics = calibration({"l0.ffn": np.eye(4)}, [0.0])
    with pytest.raises(ScheduleError, match=r"num_updates: must be in \[1, 4\], got 5"):
        global_budget_schedule(statistics, 5)
    with pytest.raises(ScheduleError, match=r"costs: lacks 1 .* first l0\.ffn"):
        global_budget_schedule(statistics, 2, costs={})
    with pytest.raises(ScheduleError, match="must pay one update of every block, at least 3, got 2"):
        allocate(np.ones((2, 4)), [1.0, 2.0], 2.0)
