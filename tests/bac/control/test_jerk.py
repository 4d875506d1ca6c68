"""Jerk: what a third difference is, and where it is counted."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest

from bac.control import JerkMeter, jerk_of, jerk_of_switches
from tests.bac.control.virtual import Odometer, Prophet, VirtualClock, loop_of


def measured(values, chunks):
    meter = JerkMeter()
    for value, chunk in zip(values, chunks, strict=True):
        meter.add(np.array([value, value], np.float32), chunk)
    return meter.jerk()


def test_a_cubic_has_a_jerk_of_six():
    jerk = measured([k**3 for k in range(7)], [0] * 7)
    assert (jerk.inside, jerk.all) == (6.0, 6.0)
    assert isnan(jerk.seam)


def test_where_there_was_none_it_says_so():
    assert str(measured([k**3 for k in range(7)], [0] * 7)) == "inside 6  seam none  all 6"


def test_a_steady_motion_has_none():
    assert measured([3 * k for k in range(5)], [0] * 5).inside == 0.0


def test_a_jump_between_chunks_is_jerk_at_the_seam_only():
    # Third differences of 0 0 0 0 8 8 8 8: 0 in both chunks, 8, -16 and 8 across.
    jerk = measured([0, 0, 0, 0, 8, 8, 8, 8], [0, 0, 0, 0, 1, 1, 1, 1])
    assert jerk.inside == 0.0
    assert jerk.seam == pytest.approx(sqrt((8**2 + 16**2 + 8**2) / 3))
    assert jerk.all == pytest.approx(sqrt((8**2 + 16**2 + 8**2) / 5))


def test_held_actions_belong_to_no_chunk():
    assert isnan(measured([0, 1, 1, 1, 1, 2], [0, 0, None, None, 1, 1]).inside)


def test_actions_with_a_gap_between_them_are_not_in_a_row():
    meter = JerkMeter()
    for value in (0, 0, 0):
        meter.add(np.array([value], np.float32), 0)
    meter.skip()
    for value in (9, 9, 9):
        meter.add(np.array([value], np.float32), 0)
    assert meter.counts == [0, 0]


def test_the_mean_is_over_components():
    meter = JerkMeter()
    for k in range(4):
        meter.add(np.array([k**3, 0.0], np.float32), 0)
    assert meter.jerk().inside == pytest.approx(sqrt(36 / 2))


def test_sums_of_several_runs_add_up():
    assert jerk_of([4.0, 0.0], [1, 0]).inside == 2.0
    assert jerk_of([4.0, 12.0], [1, 3]).all == 2.0


def test_the_loop_measures_the_actions_that_it_sent():
    # Chunks of 5 rows, each 0.5 further than the last: row k says k, so inside there is no jerk; a seam jumps by 0.5.
    clock = VirtualClock()
    statistics = loop_of(Prophet(clock, [0.12], bias=0.5), Odometer(clock)).run(23)
    assert statistics.jerk.inside == 0.0
    assert statistics.jerk.seam > 0.0
    assert str(statistics).splitlines()[-1].startswith("  jerk                  inside 0  seam 0.")


def test_the_loop_leaves_out_what_a_skipped_control_step_tears_apart():
    clock = VirtualClock()
    robot = Odometer(clock, act_s=[0.0, 0.25])  # step 2 is skipped: 0 1 3 4 are not in a row
    assert isnan(loop_of(Prophet(clock, [0.0, 0.02], length=11), robot).run(5).jerk.all)


def test_chunks_that_agree_can_be_switched_without_jerk_and_others_cannot():
    line = np.arange(8.0)[:, None]  # T = 8, so the switch is at row 4
    same = jerk_of_switches(np.stack([line, line, line])[None])
    assert (same.inside, same.seam, same.all) == (0.0, 0.0, 0.0)
    apart = jerk_of_switches(np.stack([line, line + 8, line])[None])
    assert apart.inside == 0.0
    assert apart.seam == pytest.approx(sqrt((8**2 + 16**2 + 8**2) / 3))
