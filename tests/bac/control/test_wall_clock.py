"""The loop in real time: a real thread, a real clock."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
import torch

import bac
from bac.control import WallClock
from bac.control.clock import prompt_threads
from bac.control.snapshot import snapshot
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


class Alone:
    """Takes 40 ms for a chunk, and counts those who are in it."""

    def __init__(self) -> None:
        self.inside, self.most = 0, 0

    def reset(self) -> None:
        self.most = max(self.most, self.inside + 1)

    def predict_action_chunk(self, observation):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.04)
        self.inside -= 1
        return torch.zeros(1, 8, 3)


def test_a_run_does_not_meet_the_last_chunk_of_the_one_before(monkeypatch, caplog):
    monkeypatch.setattr("bac.control.clock.JOIN_S", 0.001)
    policy = Alone()
    loop = bac.ControlLoop(policy, Counter(), control_hz=100, safe_action=[0.0] * 3, warmup=1, execute_steps=1)
    loop.run(3)  # ends while a chunk is computed
    assert policy.inside == 0 and not caplog.text
    loop.run(3)
    assert policy.most == 1


def test_a_chunk_is_for_what_was_seen_when_it_began_though_the_driver_reads_into_one_buffer():
    seen = []

    class Buffer:
        state = np.zeros(1)

        def observe(self):
            self.state += 1
            return {"state": self.state}

        def act(self, action) -> None:
            pass

    class Slow(Alone):
        def predict_action_chunk(self, observation):
            before = float(observation["state"][0])
            chunk = super().predict_action_chunk(observation)
            seen.append((before, float(observation["state"][0])))
            return chunk

    bac.ControlLoop(Slow(), Buffer(), control_hz=100, safe_action=[0.0] * 3, warmup=1, execute_steps=1).run(15)
    assert len(seen) > 2 and all(before == after for before, after in seen)


def test_a_snapshot_has_memory_of_its_own():
    array, tensor = np.zeros(2), torch.zeros(2)
    kept = {"task": "push", "views": [array, (tensor,)]}
    copied = snapshot(kept)
    array += 1
    tensor += 1
    assert copied["task"] == "push" and float(copied["views"][0].sum() + copied["views"][1][0].sum()) == 0.0


def test_of_two_loops_the_last_to_end_gives_the_interpreter_s_switching_back():
    before = sys.getswitchinterval()
    first, second = prompt_threads(), prompt_threads()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() < before
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == before
