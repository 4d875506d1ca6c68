from __future__ import annotations

import json
from base64 import b64encode

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.caching.estimators import BlockStep, Hold, Taylor
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError
from bac.published import AffineResidual, FittedForecast, Increment, ScaleShift

STEPS = (0, 2, 5)
SCHEDULE = Schedule(8, {"a": STEPS, "b": (0, 3)})


def walk(seed, num_batches=2, scale=1.0):
    """Random walks with a drift, batch by batch: by block, `[8, 3, 5, 2]`."""
    generator = torch.Generator().manual_seed(seed)
    shape = (8, 3, 5, 2)
    return [
        {name: scale * (torch.randn(shape, generator=generator) + 0.3).cumsum(dim=0) for name in ("a", "b")}
        for _ in range(num_batches)
    ]


def estimates(estimator, schedule, features, inputs=None):
    """What stands in for every step of every block, by block, `[K, ...]`."""
    found = {}
    for name, steps in schedule.update_steps.items():
        state, rows = None, []
        for step, output in enumerate(features[name]):
            at, x = BlockStep(name, step), None if inputs is None else inputs[name][step]
            if step in steps:
                state = estimator.store(state, at, x, output)
                rows.append(output)
            else:
                rows.append(estimator.estimate(state, at, x))
        found[name] = torch.stack(rows)
    return found


def errors(estimator, batches):
    """Mean squared error of each block and step over all batches, `[2, K]`."""
    squares = []
    for features in batches:
        found = estimates(estimator, SCHEDULE, features)
        squares.append(torch.stack([(found[n] - features[n]).square().flatten(1).mean(dim=1) for n in found]))
    return torch.stack(squares).mean(dim=0)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_on_what_it_was_fitted_on_none_is_worse_than_plain_reuse(seed, scale):
    batches = walk(seed, scale=scale)
    held = errors(Hold(), batches)
    for kind in (ScaleShift, AffineResidual, FittedForecast):
        assert (errors(kind.fit(SCHEDULE, batches), batches) <= held * (1 + 1e-4) + 1e-6).all()


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_a_fitted_forecast_is_not_worse_than_a_first_order_one(seed):
    batches = walk(seed)
    fitted, assumed = errors(FittedForecast.fit(SCHEDULE, batches), batches), errors(Taylor(1), batches)
    assert (fitted <= assumed * (1 + 1e-4) + 1e-6).all()


def test_scale_shift_finds_the_scale_and_the_shift_of_each_channel():
    # From step 0 on the first channel doubles and the second grows by 3.
    start = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    later = torch.stack([2 * start[..., 0], start[..., 1] + 3], dim=-1)
    schedule = Schedule(2, {"a": (0,)})
    fitted = ScaleShift.fit(schedule, [{"a": torch.stack([start, later])}])
    assert fitted.parameters["a"]["scale"][1] == pytest.approx([2, 1], abs=1e-5)
    assert fitted.parameters["a"]["shift"][1] == pytest.approx([0, 3], abs=1e-5)


def test_affine_residual_removes_the_mean_error_of_every_position():
    start = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    drift = torch.arange(10.0).reshape(5, 2)
    schedule = Schedule(2, {"a": (0,)})
    fitted = AffineResidual.fit(schedule, [{"a": torch.stack([start, 0.5 * start + drift])}])
    other = torch.ones(1, 5, 2)
    found = fitted.estimate(fitted.store(None, BlockStep("a", 0), None, other), BlockStep("a", 1), None)
    assert torch.allclose(found, 0.5 + drift[None], atol=1e-5)


def test_streaming_in_other_batches_fits_the_same():
    (one, other) = walk(1)
    together = [{name: torch.cat([one[name], other[name]], dim=1) for name in one}]
    for kind in (ScaleShift, AffineResidual, FittedForecast):
        apart, whole = kind.fit(SCHEDULE, [one, other]), kind.fit(SCHEDULE, together)
        for name, arrays in whole.parameters.items():
            for key, values in arrays.items():
                assert apart.parameters[name][key] == pytest.approx(values, abs=1e-5)


def test_a_constant_output_stays_what_it_is():
    constant = [{"a": torch.full((8, 3, 5, 2), 7.0), "b": torch.zeros(8, 3, 5, 2)}]
    for kind in (ScaleShift, AffineResidual, FittedForecast):
        assert errors(kind.fit(SCHEDULE, constant), constant).max() < 1e-10


def test_increment_is_exact_on_affine_blocks_of_its_rank():
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(6, 2, generator=generator), torch.randn(2, 6, generator=generator)
    inputs = {"a": torch.randn(8, 3, 5, 6, generator=generator)}
    outputs = {"a": inputs["a"] @ down @ up + 1.0}
    schedule = Schedule(8, {"a": STEPS})
    exact = Increment.fit(schedule, [inputs], [outputs], rank=2)
    assert torch.allclose(estimates(exact, schedule, outputs, inputs)["a"], outputs["a"], atol=1e-3)
    coarse = Increment.fit(schedule, [inputs], [outputs], rank=1)
    held = (estimates(Hold(), schedule, outputs)["a"] - outputs["a"]).square().mean()
    assert (estimates(coarse, schedule, outputs, inputs)["a"] - outputs["a"]).square().mean() < held


@pytest.mark.parametrize("kind", [ScaleShift, AffineResidual, FittedForecast])
def test_document_round_trip_through_json_is_the_identity(kind):
    fitted = kind.fit(SCHEDULE, walk(0))
    loaded = kind.from_document(json.loads(json.dumps(fitted.to_document())))
    assert loaded == fitted and hash(loaded) == hash(fitted)
    features = walk(2)[0]
    for name, values in estimates(fitted, SCHEDULE, features).items():
        assert torch.equal(estimates(loaded, SCHEDULE, features)[name], values)


def test_one_bit_of_a_parameter_makes_another_estimator():
    fitted = ScaleShift({"a": {"scale": np.ones((2, 3)), "shift": np.zeros((2, 3))}})
    nearly = ScaleShift({"a": {"scale": np.full((2, 3), 1 + 2**-23), "shift": np.zeros((2, 3))}})
    assert fitted != nearly
    assert fitted == ScaleShift({"a": {"scale": np.ones((2, 3)), "shift": np.zeros((2, 3))}})
    assert fitted != AffineResidual(fitted.parameters)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"shape": [3]}, "a, scale: its numbers are damaged"),
        ({"float32": "?"}, "a, scale: its numbers are damaged"),
        ({"float32": None}, "a, scale: its numbers are damaged"),
        (
            {"float32": b64encode(np.array([1, np.nan], "<f4").tobytes()).decode()},
            "a, scale: holds a number that is not",
        ),
    ],
)
def test_damaged_parameters_are_refused_by_name(damage, message):
    document = ScaleShift({"a": {"scale": np.ones(2)}}).to_document()
    document["a"]["scale"] |= damage
    with pytest.raises(ScheduleError, match=message):
        ScaleShift.from_document(document)


def test_what_cannot_be_is_refused():
    with pytest.raises(ScheduleError, match="features: none were given"):
        ScaleShift.fit(SCHEDULE, [])
    with pytest.raises(ScheduleError, match="lack 1 of the schedule's blocks, first b"):
        ScaleShift.fit(SCHEDULE, [{"a": torch.zeros(8, 1, 1, 1)}])
    with pytest.raises(ScheduleError, match="of 7 denoising steps, the schedule of 8"):
        ScaleShift.fit(SCHEDULE, [dict.fromkeys("ab", torch.zeros(7, 1, 1, 1))])
    with pytest.raises(ScheduleError, match="was not fitted for step 1 of c"):
        ScaleShift.fit(SCHEDULE, walk(0)).estimate(torch.zeros(1), BlockStep("c", 1), None)
    with pytest.raises(ScheduleError, match="rank: must be at least 1, got 0"):
        Increment.fit(SCHEDULE, [], [], rank=0)
