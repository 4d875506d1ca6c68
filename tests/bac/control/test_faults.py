"""Whatever fails, the robot is given its safe action once and left alone; a stale chunk is never repeated silently."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bac
from bac.control.checks import as_chunk
from tests.bac.control.virtual import HANG, Odometer, Prophet, VirtualClock, loop_of


def failure(policy, robot, num_steps=23, **options):
    with pytest.raises(bac.errors.ControlError) as caught:
        loop_of(policy, robot, **options).run(num_steps)
    assert not robot.clock.open_workers
    return caught.value


def stopped(policy, robot, num_steps=23, **options):
    """The error of a run whose last action was the safe one."""
    error = failure(policy, robot, num_steps, **options)
    assert robot.acted[-1] == -1
    assert -1 not in robot.acted[:-1]
    assert error.safe_action_sent
    return error


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def robot(clock):
    return Odometer(clock)


@pytest.fixture
def policy(clock):
    """Its second chunk after warming up is observed at step 6, and arrives at step 8."""
    return Prophet(clock, [0.12])


def spoiling(policy, change):
    policy.spoil = lambda number, chunk: change(chunk) if number == 2 else chunk
    return policy


def test_a_policy_that_raises(policy, robot):
    def out_of_memory(chunk):
        raise MemoryError("CUDA out of memory")

    error = stopped(spoiling(policy, out_of_memory), robot)
    assert str(error) == "policy: raised MemoryError('CUDA out of memory')"
    assert isinstance(error.__cause__, MemoryError)
    assert robot.acted == [0, 1, 2, 3, 4, 5, 6, 7, -1]  # as soon as it is known: at step 8
    assert error.statistics.num_steps == 8


def test_a_policy_that_hangs(clock, robot):
    error = stopped(Prophet(clock, [0.12, 0.12, HANG]), robot, timeout_s=0.5)
    assert "hung. Control step 12: the chunk for the observation of step 6 has not arrived after" in str(error)
    assert robot.acted == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, -1]  # its chunk ends with step 7, which is held
    assert error.statistics.held_steps == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_action_that_is_not_finite(policy, robot, value):
    def spoil(chunk):
        chunk[0, 3, 1] = value
        return chunk

    error = stopped(spoiling(policy, spoil), robot)
    assert str(error) == f"action chunk: action 3, component 1 is {value}"


def test_an_action_out_of_range(policy, robot):
    error = stopped(policy, robot, action_range=([0, -100], [12, 100]))
    assert "action 4, component 0 is 13, outside of [0, 12]. Clip in the policy's postprocessor" in str(error)
    assert robot.acted == [*range(11), -1]  # observed at step 9, it arrives at step 11


def test_a_chunk_of_another_shape(policy, robot):
    error = stopped(spoiling(policy, lambda chunk: chunk[..., :1]), robot)
    assert "actions have 1 components, had 2 before" in str(error)


def test_a_policy_too_slow_for_the_rate_at_all(clock, robot):
    error = stopped(Prophet(clock, [0.3, 0.7]), robot)
    assert "too slow. Two chunks in a row came after the time of their last action: 5 actions last 0.500 s" in str(
        error
    )


def test_one_chunk_that_is_too_slow_is_survived(clock, robot):
    statistics = loop_of(Prophet(clock, [0.08, 0.68, 0.08]), robot).run(15)
    assert statistics.held_steps == 7
    assert robot.acted[:15] == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 12, 13, 14]


def test_a_robot_that_cannot_observe(policy, robot, monkeypatch):
    def observe():
        if len(robot.acted) == 4:
            raise OSError("camera")
        return len(robot.acted)

    monkeypatch.setattr(robot, "observe", observe)
    error = stopped(policy, robot)
    assert str(error) == "robot: observe() raised OSError('camera')"
    assert robot.acted == [0, 1, 2, 3, -1]


def test_a_robot_that_cannot_act_is_not_said_to_be_safe(policy, robot, monkeypatch, caplog):
    def act(action):
        raise OSError("bus")

    monkeypatch.setattr(robot, "act", act)
    error = failure(policy, robot)
    assert not error.safe_action_sent
    assert "the safe action was NOT sent" in caplog.text


def test_an_interrupt_leaves_no_robot_moving(policy, robot):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop_of(policy, robot).run(until=interrupt)
    assert robot.acted == [0, -1]


@pytest.mark.parametrize("safe", [[1.0], [0.0, float("nan")], [[0.0, 0.0]]])
def test_a_safe_action_that_is_none_is_found_out_before_the_robot_moves(policy, robot, safe):
    error = failure(policy, robot, safe_action=safe)
    assert "safe_action: must be finite and [2]" in str(error)
    assert robot.acted == []


def test_a_policy_slower_than_its_time_limit_is_found_out_before_the_robot_moves(clock, robot):
    error = stopped(Prophet(clock, [1.5]), robot)
    assert "took 1.500 s after warming up, longer than timeout_s = 1" in str(error)
    assert "timeout_s=3" in str(error)
    assert robot.acted == [-1]


def test_a_policy_that_hangs_while_it_warms_up(clock, robot):
    assert "hung while warming up" in str(stopped(Prophet(clock, [HANG]), robot))


@pytest.mark.parametrize("shape", [(2, 5, 3), (5,), (1, 0, 3)])
def test_a_chunk_is_of_one_robot(shape):
    with pytest.raises(bac.BacError, match=r"must be \[1, T, Da\] or \[T, Da\]"):
        as_chunk(torch.zeros(shape))


def test_chunks_are_taken_with_and_without_a_batch():
    rows = np.arange(6.0).reshape(2, 3)
    for value in (rows, rows[None], torch.tensor(rows), torch.tensor(rows[None], dtype=torch.bfloat16)):
        assert as_chunk(value).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "value",
    [None, {"action": 1}, "actions", [["a", "b"]], [[1, 2], [3]], torch.zeros(1, 2, 3) * 1j, torch.eye(3).to_sparse()],
)
def test_a_chunk_that_holds_no_real_numbers(policy, robot, value):
    error = stopped(spoiling(policy, lambda chunk: value), robot)
    assert str(error).startswith("action chunk: cannot be read as real numbers")


def test_an_action_range_of_another_size(policy, robot):
    error = stopped(policy, robot, action_range=([0, 0, 0], [1, 1, 1]))
    assert "action_range: must fit 2 components" in str(error)


def test_a_driver_that_scales_an_action_in_place_changes_none_that_is_sent_later(clock, robot, monkeypatch):
    safe = np.full(2, -1, np.float32)
    act = robot.act

    def scaled(action):
        act(action)
        action *= 1000

    monkeypatch.setattr(robot, "act", scaled)
    for on_miss, held in (("hold", 4), ("safe", -1)):
        robot.acted.clear()
        loop_of(Prophet(clock, [0.1, 0.9, 0.1]), robot, on_miss=on_miss, safe_action=safe).run(15)
        assert robot.acted[:6] == [0, 1, 2, 3, 4, held]
    assert safe.tolist() == [-1, -1]
