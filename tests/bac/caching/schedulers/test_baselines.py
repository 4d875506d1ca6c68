"""Schedules shared by all blocks."""

from __future__ import annotations

import numpy as np
import pytest

from bac.caching.schedulers.unified import unified_schedule
from bac.caching.schedulers.uniform import uniform_schedule
from bac.errors import ScheduleError
from tests.bac.statistics import calibration

BREAK_AT_2 = np.kron(np.eye(2), np.ones((4, 4)))[2:, 2:]
BREAK_AT_4 = np.kron(np.eye(2), np.ones((4, 4)))[:6, :6]


@pytest.fixture
def measured():
    return calibration({"l0.self_attn": BREAK_AT_2, "l0.ffn": 3 * BREAK_AT_4}, caching_error=[1.0, 1.0])


def test_uniform_steps_are_evenly_spaced(measured):
    assert set(uniform_schedule(measured, 3).update_steps.values()) == {(0, 2, 4)}
    assert set(uniform_schedule(measured, 4).update_steps.values()) == {(0, 1, 3, 4)}


def test_unified_follows_the_mean_similarity_of_all_blocks(measured):
    assert set(unified_schedule(measured, 2).update_steps.values()) == {(0, 4)}


def test_unified_can_follow_one_block(measured):
    assert set(unified_schedule(measured, 2, block="l0.self_attn").update_steps.values()) == {(0, 2)}


def test_the_final_steps_can_be_forced(measured):
    assert set(uniform_schedule(measured, 1, force_last=2).update_steps.values()) == {(0, 4, 5)}
    assert set(unified_schedule(measured, 1, force_last=1).update_steps.values()) == {(0, 5)}


def test_bad_input_is_refused(measured):
    with pytest.raises(ScheduleError, match=r"num_updates: must be in \[1, 6\]"):
        uniform_schedule(measured, 0)
    with pytest.raises(ScheduleError, match="block: must be one of the calibration's blocks"):
        unified_schedule(measured, 2, block="l7.ffn")
