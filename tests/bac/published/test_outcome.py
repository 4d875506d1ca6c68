from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bac
from bac.caching.estimators import Taylor
from bac.caching.schedulers.search import coordinate_search
from bac.errors import CalibrationError, ScheduleError
from bac.published.outcome import edge_grid, fill, outcome_schedule
from bac.published.perturbation import edge_costs
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep
from tests.bac.statistics import calibration


def test_the_cost_of_an_edge_is_the_squared_change_of_the_actions():
    policy = TickPolicy(num_steps=5)
    blocks = policy.blocks()
    batch = {"obs": torch.zeros(2, 3)}
    # Ticks 1 + 2 + 3 + 4 + 5. Holding 1 over steps 1 and 2 loses 1 + 2, holding 3 over step 3 loses 1.
    costs = edge_costs(policy, batch, [(0, 3), (2, 4), (1, 2)], blocks=blocks, num_rows=4)
    assert costs.tolist() == [9.0, 1.0, 0.0]
    assert edge_costs(policy, batch, [(2, 5)], blocks=blocks, estimator=Taylor(1)).tolist() == [0.0]


def test_an_edge_costs_what_a_schedule_with_that_gap_does():
    policy = TinyTransformerPolicy()
    (cost,) = edge_costs(policy, obs(3), [(2, 5)], num_rows=3, seed=4)
    chunks = []
    for steps in (tuple(range(7)), (0, 1, 2, 5, 6)):
        bac.wrap(policy, sweep(policy, steps, 7), replay=False)
        torch.manual_seed(4)
        with torch.no_grad():
            chunks.append(policy.predict_action_chunk(obs(3)).double())
    assert cost == pytest.approx((chunks[1] - chunks[0]).square().mean().item(), rel=1e-3)


def test_measuring_leaves_no_trace():
    policy = TinyTransformerPolicy()
    before = [sorted(vars(module)) for module in policy.modules()]
    edge_costs(policy, obs(2), [(0, 3)])
    assert [sorted(vars(module)) for module in policy.modules()] == before
    with pytest.raises(CalibrationError, match=r"pairs of increasing steps, got \(3, 3\)"):
        edge_costs(policy, obs(2), [(3, 3)])
    bac.wrap(policy, sweep(policy, (0, 3), 7))
    with pytest.raises(CalibrationError, match=r"bac\.unwrap\(policy\)"):
        edge_costs(policy, obs(2), [(0, 3)])


@given(st.integers(1, 12), st.integers(1, 12))
def test_measured_edges_keep_their_costs_and_neighbours_cost_nothing(num_steps, num_starts):
    edges = edge_grid(num_steps, num_starts)
    if num_steps == 1:
        assert edges == ()
        return
    costs = [(end - start) ** 2 / (start + 1.0) for start, end in edges]
    table = fill(edges, costs, num_steps)
    assert [table[edge] for edge in edges if edge[1] - edge[0] > 1] == pytest.approx(
        [cost for edge, cost in zip(edges, costs, strict=True) if edge[1] - edge[0] > 1]
    )
    assert all(table[i, i + 1] == 0 for i in range(num_steps - 1) if i + 1 < num_steps)
    assert all(np.isfinite(table[i, i + 1 :]).all() for i in range(num_steps))


def test_amplitudes_are_interpolated_along_the_length():
    # An amplitude of 0 at length 1 and of 4 at length 5: 1, 2, 3 between, squared.
    assert fill([(0, 5)], [16.0], 5)[0].tolist() == [np.inf, 0.0, 1.0, 4.0, 9.0, 16.0]


def test_the_outcome_decides_and_the_schedule_names_the_estimator():
    names = ["l0.self_attn", "l0.ffn"]
    statistics = calibration({name: np.eye(4) for name in names}, [0.0, 0.0])
    # Reuse across step 2 is dear.
    cost = np.array([[99.0 if i < 2 < j else 1.0 for j in range(5)] for i in range(4)])
    for objective in ("sum", "worst"):
        schedule = outcome_schedule(statistics, cost, 2, objective=objective, estimator="taylor-1")
        assert dict(schedule.update_steps) == dict.fromkeys(names, (0, 2))
        assert schedule.estimator == "taylor-1"


@given(st.integers(2, 9).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, k))), st.integers(0, 999))
def test_a_search_is_never_worse_than_its_start_and_cannot_be_improved_by_one_move(size, seed):
    num_steps, num_updates = size
    weights = np.random.default_rng(seed).uniform(0, 1, num_steps)

    def error(steps):
        return float(weights[list(steps)].sum())

    start = tuple(range(num_updates))
    found, least = coordinate_search(start, num_steps, error, max_evaluations=10**6)
    assert error(found) == least <= error(start)
    assert (found[0], len(set(found))) == (0, num_updates)
    free = set(range(1, num_steps)) - set(found)
    assert all(
        error(tuple(sorted({*found, new} - {old}))) >= least
        for old in found[1:]
        for new in free
        if abs(new - old) in (1, 2, 4, 8)
    )


def test_a_search_stops_where_it_may_not_ask_again():
    asked = []
    coordinate_search((0, 3), 9, lambda steps: asked.append(steps) or -len(asked), max_evaluations=4)
    assert len(asked) == 4


def test_what_cannot_be_is_refused():
    with pytest.raises(ScheduleError, match="steps: must increase from 0 and stay below 5"):
        coordinate_search((0, 5), 5, len)
    with pytest.raises(ScheduleError, match="costs: one finite cost"):
        fill([(0, 2)], [-1.0], 3)
    with pytest.raises(ScheduleError, match="num_starts: must be at least 1, got 0"):
        edge_grid(5, 0)
