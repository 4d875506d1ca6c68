"""A robot that never waits: which action is sent when, and what is counted."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bac
from tests.bac.control.virtual import Odometer, Prophet, VirtualClock, loop_of


def played(latencies, num_steps, *, length=5, bias=0.0, oversleep=(), act_s=(), **options):
    clock = VirtualClock(oversleep)
    robot, policy = Odometer(clock, act_s), Prophet(clock, latencies, length, bias=bias)
    statistics = loop_of(policy, robot, **options).run(num_steps)
    return robot, policy, statistics


def test_every_step_gets_the_action_that_belongs_to_it():
    # Whatever the chunk, its row for step k says k.
    robot, _, statistics = played([0.12], 23)
    assert robot.acted == list(range(23))
    assert (statistics.num_steps, statistics.held_steps, statistics.missed_deadlines) == (23, 0, 0)


def test_the_next_chunk_is_begun_as_early_as_its_latency_asks():
    # 0.12 s are 2 steps of 0.1 s: a chunk observed at step k lasts until k + 5, so its successor is begun at k + 3.
    _, policy, statistics = played([0.12], 23)
    assert policy.observed == [0, 3, 6, 9, 12, 15, 18, 21]
    assert statistics.num_chunks == 6  # the one of step 21 is still being thought of
    assert statistics.latency_s.p50 == pytest.approx(0.12)


def test_execute_steps_lets_the_next_chunk_take_over_early():
    _, policy, _ = played([0.12], 13, length=11, execute_steps=5)
    assert policy.observed == [0, 3, 6, 9, 12]
    _, policy, _ = played([0.12], 9, length=11, execute_steps=1)
    assert policy.observed == [0, 1, 3, 5, 7]  # thinks without a break


def test_a_late_chunk_is_waited_for_with_the_last_action_and_counted():
    # The second chunk, begun at step 4 in the belief that it takes 1 step, takes 3.
    robot, policy, statistics = played([0.1, 0.3, 0.1], 13)
    assert robot.acted[:9] == [0, 1, 2, 3, 4, 4, 4, 7, 8]
    assert statistics.held_steps == 2
    assert policy.observed == [0, 4, 7, 9, 11]  # and from then on each is begun 3 steps before it is needed


def test_a_late_chunk_can_be_waited_for_with_the_safe_action():
    robot, _, _ = played([0.1, 0.3, 0.1], 9, on_miss="safe")
    assert robot.acted == [0, 1, 2, 3, 4, -1, -1, 7, 8]


def test_the_safe_action_may_depend_on_what_was_sent_and_seen():
    seen = []

    def safe(last, observation):
        seen.append((None if last is None else last.tolist(), observation))
        return np.array([70.0, 0.0])

    robot, _, _ = played([0.1, 0.3, 0.1], 7, on_miss="safe", safe_action=safe)
    assert robot.acted == [0, 1, 2, 3, 4, 70, 70]
    assert seen == [(None, 0), ([4, -4], 5), ([70, 0], 6)]  # the first time to see that it works


def test_steps_begin_on_an_absolute_grid():
    robot, _, statistics = played([0.0, 0.02], 6, length=11, oversleep=[0.0, 0.03, 0.0, 0.01], act_s=[0.05] * 6)
    assert robot.times == pytest.approx([100.0, 100.13, 100.2, 100.31, 100.4, 100.5])
    assert statistics.missed_deadlines == 0
    assert statistics.jitter_s.max == pytest.approx(0.03)


def test_a_robot_that_blocks_misses_the_deadline_and_nothing_is_made_up_for():
    # Step 1 takes 0.25 s, so it is not over when step 2 is due, and step 2 is skipped; step 3 begins late.
    robot, _, statistics = played([0.0, 0.02], 6, length=11, act_s=[0.0, 0.25])
    assert [round(10 * (t - robot.times[0]), 6) for t in robot.times] == [0, 1, 3.5, 4, 5]
    assert (statistics.missed_deadlines, statistics.num_steps) == (2, 5)


def test_an_operating_system_that_oversleeps_skips_steps():
    _, _, statistics = played([0.0, 0.02], 6, length=11, oversleep=[0.0, 0.0, 0.0, 0.25])
    assert (statistics.missed_deadlines, statistics.num_steps) == (2, 4)
    assert statistics.jitter_s.max == pytest.approx(0.25)


def test_the_age_of_what_was_observed_is_told():
    # Acted on from 2 to 4 steps after its observation, but for the first chunk: 0.12 s before step 0.
    _, _, statistics = played([0.12], 23)
    assert statistics.observation_age_s.p50 == pytest.approx(0.3)
    assert statistics.observation_age_s.max == pytest.approx(0.52, abs=0.01)


def test_a_switch_tells_how_far_apart_the_chunks_are():
    _, _, statistics = played([0.12], 23, bias=0.5, execute_steps=4)
    assert statistics.discontinuity.p50 == statistics.discontinuity.max == 0.5


def test_blending_goes_from_the_old_chunk_to_the_new_one_in_equal_steps():
    # The second chunk (bias 3) is observed at step 1 and arrives at step 3; the first lasts until step 6.
    robot, _, _ = played([0.12], 5, length=7, bias=3.0, execute_steps=3, blend_steps=2)
    assert robot.acted == pytest.approx([0, 1, 2, 3 + 1, 4 + 2])


def test_until_ends_the_run():
    clock = VirtualClock()
    robot = Odometer(clock)
    statistics = loop_of(Prophet(clock, [0.12]), robot).run(until=lambda: len(robot.acted) == 7)
    assert statistics.num_steps == 7
    assert not clock.open_workers


def test_threads_switch_promptly_while_it_runs_and_as_before_afterwards():
    before, seen = sys.getswitchinterval(), []
    clock = VirtualClock()
    loop_of(Prophet(clock, [0.12]), Odometer(clock)).run(2, until=lambda: bool(seen.append(sys.getswitchinterval())))
    assert seen == [pytest.approx(0.0005)]
    assert sys.getswitchinterval() == before


def test_warming_up_ends_with_a_policy_that_has_forgotten_it():
    clock = VirtualClock()
    robot, policy = Odometer(clock), Prophet(clock, [40.0, 7.0, 0.1], warmup=3)  # plans are recorded, then replayed
    statistics = loop_of(policy, robot, warmup=3).run(4)
    assert policy.num_resets == 2
    assert robot.acted == [0, 1, 2, 3]
    assert statistics.num_chunks == 0


def test_statistics_print_themselves():
    _, _, statistics = played([0.12], 23)
    lines = str(statistics).splitlines()
    assert lines[0] == "23 control steps at 10 Hz in 2.20 s, 6 chunks, 0 missed deadlines, 0 held steps"
    assert lines[1] == "  latency [ms]          p50 120  p95 120  p99 120  max 120"


@given(
    latencies=st.lists(st.floats(0.0, 0.9), min_size=2, max_size=20),
    length=st.integers(10, 13),
    execute=st.integers(1, 13),
)
def test_no_action_is_ever_sent_at_another_time_than_its_own(latencies, length, execute):
    robot, _, statistics = played(latencies, 47, length=length, execute_steps=execute)
    sent = [action for step, action in enumerate(robot.acted) if action != step]
    assert len(sent) == statistics.held_steps
    assert statistics.num_steps == 47


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"control_hz": 0.0}, "control_hz: must be positive"),
        ({"control_hz": "50"}, "control_hz: must be positive"),
        ({"timeout_s": None}, "timeout_s: must be positive"),
        ({"blend_steps": 1.5}, "blend_steps: must be at least 0 and whole"),
        ({"action_range": 5}, r"action_range: must be \(low, high\)"),
        ({"action_range": (1, -1)}, "action_range: low must be at most high"),
        ({"action_range": (-1, float("nan"))}, "action_range: low must be at most high"),
        ({"action_range": (-1, None)}, "action_range: cannot be read as real numbers"),
        ({"timeout_s": float("inf")}, "timeout_s: must be positive and finite"),
        ({"execute_steps": 0}, "execute_steps: must be at least 1"),
        ({"warmup": 0}, "warmup: must be at least 1"),
        ({"on_miss": "repeat"}, 'on_miss: must be "hold" or "safe"'),
    ],
)
def test_what_cannot_be_is_refused_before_anything_moves(options, message):
    clock = VirtualClock()
    with pytest.raises(bac.BacError, match=message):
        loop_of(Prophet(clock, [0.1]), Odometer(clock), **options)


def test_numbers_of_numpy_are_numbers():
    clock = VirtualClock()
    options = {"control_hz": np.float32(10), "timeout_s": np.float64(1), "blend_steps": np.int64(0)}
    robot = Odometer(clock)
    loop_of(Prophet(clock, [0.1]), robot, **options).run(np.int64(7))
    assert robot.acted == [0, 1, 2, 3, 4, 5, 6]
