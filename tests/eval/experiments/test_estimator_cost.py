from __future__ import annotations

import pytest
import torch

from eval.experiments.methods.estimator_cost import FEW, MANY, NUM_BLOCKS, Cost, batch, costs, estimators, wrapped
from eval.measure.latency import Latency


def took(us_per_block, fixed_ms=3.0):
    """Medians of a row that takes this long at every block [us]."""
    return {
        num_steps: Latency(fixed_ms + us_per_block * NUM_BLOCKS * num_steps / 1e3, 0.0, 1.0, 9, 0, "wall")
        for num_steps in (FEW, MANY)
    }


def test_a_cost_is_the_slope_less_the_loops_own():
    rows = {"constant": took(2.0), "hold": took(2.5, fixed_ms=9.0), "taylor-1": took(4.0)}
    measured = {f"replay|{name}|{steps}": row for name, both in rows.items() for steps, row in both.items()}
    operators = {"constant": 1, "hold": 1, "taylor-1": 2}
    counted = {f"replay|{name}|{n}": 5 + each * NUM_BLOCKS * n for name, each in operators.items() for n in (FEW, MANY)}
    found = {row.estimator: row for row in costs(measured, counted)}
    assert found["hold"] == Cost("hold", "replay", pytest.approx(0.5), pytest.approx(0.0), 0)
    assert found["taylor-1"] == Cost("taylor-1", "replay", pytest.approx(2.0), pytest.approx(1.5), 1)


def test_every_estimator_has_a_row_and_only_the_previous_chunk_is_not_replayed():
    names = {way: {estimator.name for estimator in estimators(FEW, way)} for way in ("interpret", "replay")}
    assert names["interpret"] - names["replay"] == {"previous_chunk"}
    assert {"hold", "taylor-1", "newton-2", "adams_bashforth-1", "scale_shift", "increment"} < names["replay"]


def test_the_constant_row_adds_a_hundredth_a_block():
    added = wrapped(4, "interpret", None).predict_action_chunk(batch()) - batch()["stream"]
    assert torch.allclose(added, torch.tensor(0.01 * 4 * NUM_BLOCKS), atol=1e-5)
