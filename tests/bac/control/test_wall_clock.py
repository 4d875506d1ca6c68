"""The loop in real time: a real thread, a real clock."""

from __future__ import annotations

import threading
import time

import pytest
import torch

import bac
from bac.control import WallClock
from tests.bac.models import TickPolicy


class Sleeper:
    """Takes 5 ms for a chunk of eight actions."""

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, observation):
        time.sleep(0.005)
        return torch.full((1, 8, 3), float(observation))


class Counter:
    def __init__(self) -> None:
        self.observed = self.acted = 0

    def observe(self) -> int:
        self.observed += 1
        return self.observed

    def act(self, action) -> None:
        self.acted += 1


@pytest.mark.slow
def test_fifty_hertz_with_a_policy_of_five_milliseconds():
    robot = Counter()
    begun = time.perf_counter()
    statistics = bac.ControlLoop(Sleeper(), robot, control_hz=50, safe_action=[0.0] * 3).run(150)
    assert time.perf_counter() - begun >= 149 / 50
    # What the operating system misses is its own; none of it accumulates, and no step is sent twice.
    assert statistics.num_steps == robot.acted <= 150
    assert statistics.num_steps + statistics.missed_deadlines >= 150
    assert statistics.num_chunks >= 15
    assert 0.005 <= statistics.latency_s.p50 < 0.1
    assert statistics.duration_s == pytest.approx(149 / 50, abs=0.2)


def test_work_that_raises_is_told_and_the_next_is_done():
    worker = WallClock().worker("policy")
    outcomes = []
    for work in (lambda: 1 / 0, lambda: 7):
        worker.submit(work)
        while (outcome := worker.outcome()) is None:
            time.sleep(0.001)
        outcomes.append(outcome)
    worker.close()
    assert isinstance(outcomes[0].error, ZeroDivisionError)
    assert (outcomes[1].value, outcomes[1].error) == (7, None)


def test_a_worker_that_hangs_stays_behind_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr("bac.control.clock.JOIN_S", 0.01)
    worker = WallClock().worker("policy")
    worker.submit(lambda: time.sleep(0.2))
    worker.close()
    assert "does not end; it stays until the process ends" in caplog.text


def test_a_wrapped_policy_thinks_in_the_thread_of_the_worker():
    policy = TickPolicy(num_steps=4)
    bac.wrap(policy, bac.Schedule(4, {"tick0": (0, 2)}), blocks=policy.blocks(), replay=False)
    threads, acted = set(), []
    think = policy.predict_action_chunk
    policy.predict_action_chunk = lambda batch: (threads.add(threading.current_thread().name), think(batch))[1]

    class Robot:
        def observe(self):
            return {"obs": torch.zeros(1, 5, 2)}

        def act(self, action) -> None:
            acted.append(action.tolist())

    loop = bac.ControlLoop(policy, Robot(), control_hz=100, safe_action=[0.0, 0.0], warmup=1, timeout_s=10.0)
    loop.run(3)
    assert acted[0] == [6.0, 6.0]  # updates give 1 and 2, and each is reused once: 1 + 1 + 2 + 2
    assert threads == {"bac-policy"}
