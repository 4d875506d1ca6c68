"""The control loop beside one that only sleeps."""

import pytest

from eval.experiments.control_loop import BusyPolicy, compare

pytestmark = pytest.mark.slow


def test_both_loops_run_at_the_same_time():
    statistics, bare = compare(control_hz=50, num_steps=50, policy_s=0.005, chunk_steps=8, progress=False)
    assert statistics.num_steps + statistics.missed_deadlines >= 50
    assert statistics.latency_s.p50 >= 0.005
    assert bare.missed_deadlines >= 0
    assert 0 <= bare.jitter_s.p50 <= bare.jitter_s.max


def test_the_policy_is_busy_for_as_long_as_it_says():
    import time

    begun = time.perf_counter()
    chunk = BusyPolicy(0.02, 3).predict_action_chunk(None)
    assert time.perf_counter() - begun >= 0.02
    assert chunk.shape == (1, 3, 1)


def test_a_policy_is_recorded_while_it_warms_up_and_replayed_while_the_robot_acts():
    import torch

    import bac
    from eval.experiments.latency.random_policy import RandomPolicy, Setting, observations

    setting = Setting(layers=1, width=16, heads=2, num_steps=4)
    policy, batch = RandomPolicy(setting), observations(setting, 1, seed=1)
    bac.wrap(policy, replay=bac.Replay(record="first"))

    class Robot:
        def __init__(self) -> None:
            self.acted = []

        def observe(self):
            return batch

        def act(self, action) -> None:
            self.acted.append(action)

    robot = Robot()
    statistics = bac.ControlLoop(policy, robot, control_hz=20, safe_action=[0.0] * 10, timeout_s=10.0).run(20)
    assert statistics.num_chunks >= 1
    assert bac.describe(policy).num_replays >= 1
    assert len(robot.acted) == statistics.num_steps
    assert all(action.shape == (10,) and torch.isfinite(torch.tensor(action)).all() for action in robot.acted)
