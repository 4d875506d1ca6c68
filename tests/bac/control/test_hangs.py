"""Whatever hangs, the run ends in time: with the safe action and an error."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import bac
from tests.bac.control.test_faults import failure, stopped
from tests.bac.control.virtual import HANG, Odometer, Prophet, VirtualClock, loop_of


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def robot(clock):
    return Odometer(clock)


@pytest.fixture
def policy(clock):
    return Prophet(clock, [0.12])


def hanging(clock, function, number):
    """As `function`, but call `number` of it, and every later one while time is up, does not return."""
    calls = []

    def call(*args):
        calls.append(args)
        if len(calls) == number:
            clock.spend(HANG)
        return function(*args)

    return call


def test_an_observation_that_hangs(clock, policy, robot, monkeypatch):
    monkeypatch.setattr(robot, "observe", hanging(clock, robot.observe, 5))  # one while warming up, then steps 0 to 3
    error = stopped(policy, robot, robot_timeout_s=0.7)
    assert "robot: observe() hung: it has not returned after 0.7 s. If it may take that long, allow more" in str(error)
    assert robot.acted == [0, 1, 2, -1]
    assert robot.times[-1] - robot.times[0] == pytest.approx(0.3 + 0.7)  # step 3 begins, and 0.7 s later it is safe


def test_an_action_that_hangs_is_followed_by_the_safe_one_from_another_thread(clock, policy):
    robot = Odometer(clock, act_s=[0.0, 0.0, HANG])
    error = stopped(policy, robot)
    assert "robot: act() hung" in str(error)
    assert robot.acted == [0, 1, 2, -1]
    assert len(clock.workers["robot"]) == 2


def test_a_robot_that_stays_hung_is_not_said_to_be_safe(clock, policy, caplog):
    robot = Odometer(clock, act_s=[0.0, HANG, HANG])
    error = failure(policy, robot)
    assert not error.safe_action_sent
    assert "the safe action was NOT sent" in caplog.text


def test_an_until_that_hangs(clock, policy, robot):
    loop = loop_of(policy, robot)
    with pytest.raises(bac.errors.ControlError, match=r"until\(\) hung"):
        loop.run(until=hanging(clock, lambda: False, 3))
    assert robot.acted == [0, 1, 2, -1]


def test_a_safe_action_that_hangs(clock, policy, robot):
    error = failure(policy, robot, safe_action=hanging(clock, lambda last, observation: [-1.0, -1.0], 1))
    assert "safe_action() hung" in str(error)
    assert robot.acted == [-1]  # asked before time starts; the second time it answers


def test_a_reset_that_hangs(clock, policy, robot, monkeypatch):
    monkeypatch.setattr(policy, "reset", hanging(clock, policy.reset, 1))
    assert "policy: hung while warming up" in str(failure(policy, robot))


def test_a_robot_that_takes_long_to_connect_is_waited_for(clock, policy, robot, monkeypatch):
    def connect():
        monkeypatch.undo()
        clock.spend(20.0)
        return 0

    monkeypatch.setattr(robot, "observe", connect)
    assert loop_of(policy, robot, robot_timeout_s=0.7).run(3).num_steps == 3


class Still:
    """Observes and acts at once, but for a call that waits for ever; remembers threads and actions."""

    def __init__(self, stuck: str = "") -> None:
        self.stuck, self.num_observed = stuck, 0
        self.acted: list[float] = []
        self.threads: set[int] = set()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, observation):
        return [[1.0]] * 100

    def observe(self) -> int:
        self.num_observed += 1
        if self.stuck == "observe" and self.num_observed == 4:
            threading.Event().wait()
        return self.num_observed

    def act(self, action) -> None:
        self.acted.append(float(action[0]))
        self.threads.add(threading.get_ident())
        if self.stuck == "act" and len(self.acted) == 3:
            threading.Event().wait()


@pytest.mark.parametrize(("stuck", "expected"), [("observe", [1, 1, -1]), ("act", [1, 1, 1, -1])])
def test_a_robot_that_really_hangs(stuck, expected, monkeypatch):
    monkeypatch.setattr("bac.control.clock.JOIN_S", 0.01)
    robot = Still(stuck)
    loop = bac.ControlLoop(robot, robot, control_hz=100, safe_action=[-1.0], warmup=1, robot_timeout_s=0.5)
    begun = time.perf_counter()
    with pytest.raises(bac.errors.ControlError, match=rf"robot: {stuck}\(\) hung") as caught:
        loop.run(1000)
    assert time.perf_counter() - begun < 5.0
    assert caught.value.safe_action_sent
    assert robot.acted == expected


def test_the_robot_is_used_from_one_thread_of_its_own():
    robot = Still()
    bac.ControlLoop(robot, robot, control_hz=100, safe_action=[-1.0], warmup=1).run(3)
    assert len(robot.threads - {threading.get_ident()}) == len(robot.threads) == 1


def test_a_robot_without_a_time_limit_is_used_from_the_callers_thread():
    robot = Still()
    bac.ControlLoop(robot, robot, control_hz=100, safe_action=[-1.0], warmup=1, robot_timeout_s=None).run(3)
    assert robot.threads == {threading.get_ident()}


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt, also where a shell started the tests in its background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_the_robot_acts_waits_for_it_and_then_sends_the_safe_action():
    robot, log = Still(), []

    def act(action):
        log.append(("begun", float(action[0])))
        if len(log) == 5:  # the third action
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        log.append(("ended", float(action[0])))

    robot.act = act
    with pytest.raises(KeyboardInterrupt):
        bac.ControlLoop(robot, robot, control_hz=100, safe_action=[-1.0], warmup=1).run(100)
    assert log == [(word, value) for value in (1, 1, 1, -1) for word in ("begun", "ended")]
