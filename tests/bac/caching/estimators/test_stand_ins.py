"""Estimators that need more than stored outputs: the block's input, or the action chunk before."""

from __future__ import annotations

import pytest
import torch

from bac.caching.estimators import BlockStep, Residual
from bac.errors import ScheduleError
from bac.published import PreviousChunk, Rescale, estimator_named


def at(step):
    return BlockStep("b", step)


def test_rescale_follows_the_length_of_the_input_token_by_token():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    state = Rescale().store(None, at(0), x, torch.tensor([[5.0], [7.0], [9.0]]))
    # Twice as long; half of it, and something across; a zero input leaves the output alone.
    now = torch.tensor([[2.0, 0.0], [3.0, 1.0], [4.0, 4.0]])
    assert Rescale().estimate(state, at(1), now).flatten().tolist() == [10.0, 3.5, 9.0]


def test_a_residual_is_added_to_the_stream_as_it_is_now():
    # A layer that made 10 of 7 adds 3, whatever comes in later.
    state = Residual().store(None, at(0), torch.tensor([7.0]), torch.tensor([10.0]))
    assert Residual().estimate(state, at(4), torch.tensor([100.0])).item() == 103.0


def chunk(rule, state, values, updates):
    """One action chunk: the state it leaves and the values it returned; None is computed and stored."""
    returned = []
    for step, value in enumerate(values):
        found = None if step in updates else rule.estimate(state, at(step), None)
        if found is None:
            found = torch.tensor([value])
            state = rule.store(state, at(step), None, found)
        returned.append(found.item())
    return state, returned


def test_the_first_chunk_is_computed_and_the_second_reuses_it():
    rule = PreviousChunk(refresh=3)
    state, returned = chunk(rule, None, [1.0, 2.0, 3.0], {0})
    assert returned == [1.0, 2.0, 3.0]
    state, returned = chunk(rule, state, [11.0, 12.0, 13.0], {0, 2})
    assert returned == [11.0, 2.0, 13.0]
    state, returned = chunk(rule, state, [21.0, 22.0, 23.0], {0})
    assert returned == [21.0, 2.0, 3.0]
    _, returned = chunk(rule, state, [31.0, 32.0, 33.0], {0})
    assert returned == [31.0, 32.0, 33.0]  # every third chunk is computed in full


def test_an_anchored_chunk_takes_only_the_change_from_the_one_before():
    rule = PreviousChunk(anchored=True)
    state, _ = chunk(rule, None, [1.0, 2.0, 4.0, 8.0], {0})
    _, returned = chunk(rule, state, [11.0, 0.0, 34.0, 0.0], {0, 2})
    assert returned == [11.0, 12.0, 34.0, 38.0]


def test_a_batch_of_another_shape_begins_anew():
    rule = PreviousChunk()
    state, _ = chunk(rule, None, [1.0, 2.0], {0})
    state = rule.store(state, at(0), None, torch.zeros(2))
    assert rule.estimate(state, at(1), None) is None


@pytest.mark.parametrize(
    "name",
    [
        "hold",
        "rescale",
        "residual",
        "previous_chunk",
        "previous_chunk_anchored",
        "taylor-1",
        "newton-2",
        "adams_bashforth-1",
    ],
)
def test_a_name_finds_its_estimator(name):
    assert estimator_named(name).name == name


def test_timesteps_are_given_to_those_that_extrapolate_along_them():
    assert estimator_named("taylor-1-timestep", (9.0, 5.0, 0.0)).times == (9.0, 5.0, 0.0)
    with pytest.raises(ScheduleError, match="which this policy's solver does not list"):
        estimator_named("taylor-1-timestep")


def test_what_cannot_be_is_refused():
    with pytest.raises(
        ScheduleError, match=r"Give them: bac\.Denoising\(schedule=schedule, estimator=bac\.published\.ScaleShift\.fit"
    ):
        estimator_named("scale_shift")
    with pytest.raises(ScheduleError, match="must be one of hold, .*, got 'fourier-1'"):
        estimator_named("fourier-1")
    with pytest.raises(ScheduleError, match="refresh: must be at least 1 chunk, got 0"):
        PreviousChunk(refresh=0)
    for rule in (Rescale(), Residual()):
        with pytest.raises(ScheduleError, match="b: takes no tensor"):
            rule.store(None, at(0), None, torch.zeros(1))
