"""A world in which time passes when it is told to: a clock, a policy and a robot whose every move is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from math import inf
from typing import Any

import numpy as np
import torch

import bac
from bac.control import Outcome

HANG = inf


class VirtualClock:
    """Stands still but for sleeping and `spend`; work takes what its policy spends.

    Args:
        oversleep: By how much each sleep ends too late, one after another; then 0 [s].
    """

    def __init__(self, oversleep: Sequence[float] = ()) -> None:
        self.time = 100.0
        self.thought: float | None = None
        self.workers: dict[str, list[VirtualWorker]] = {"policy": [], "robot": []}
        self._oversleep = list(oversleep)

    def now(self) -> float:
        return self.time

    def sleep_until(self, time_s: float) -> None:
        self.time = max(self.time, time_s) + (self._oversleep.pop(0) if self._oversleep else 0.0)

    def spend(self, seconds: float) -> None:
        """Time passes: the worker's if it is at work, else everybody's."""
        if self.thought is None:
            self.time += seconds
        else:
            self.thought += seconds

    def worker(self, name: str) -> VirtualWorker:
        self.workers[name].append(VirtualWorker(self))
        return self.workers[name][-1]

    @property
    def open_workers(self) -> list[VirtualWorker]:
        """Those that were not closed exactly once."""
        return [worker for workers in self.workers.values() for worker in workers if worker.num_closed != 1]


class VirtualWorker:
    """Does its work at once, and shows it when its time has come."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._done: tuple[float, Outcome] | None = None
        self.num_closed = 0

    def submit(self, work: Callable[[], Any]) -> None:
        assert self._done is None, "one piece of work at a time"
        self._clock.thought, value, error = 0.0, None, None
        try:
            value = work()
        except BaseException as raised:
            error = raised
        seconds, self._clock.thought = self._clock.thought, None
        self._done = self._clock.time + seconds, Outcome(value, error, seconds)

    def outcome(self) -> Outcome | None:
        if self._done is None or self._clock.time < self._done[0]:
            return None
        (_, outcome), self._done = self._done, None
        return outcome

    def wait(self, until_s: float) -> Outcome | None:
        self._clock.time = min(until_s, max(self._clock.time, self._done[0] if self._done else inf))
        return self.outcome()

    def close(self) -> None:
        self.num_closed += 1


class Odometer:
    """Its observation is how often it was observed since time started; remembers what it was given and when."""

    def __init__(self, clock: VirtualClock, act_s: Sequence[float] = ()) -> None:
        self.clock = clock
        self.acted: list[float] = []
        self.times: list[float] = []
        self._act_s = list(act_s)

    def observe(self) -> int:
        return len(self.acted)

    def act(self, action: np.ndarray) -> None:
        assert action.shape == (2,) and action.dtype == np.float32
        self.acted.append(float(action[0]))
        self.times.append(self.clock.now())
        if self._act_s:
            self.clock.spend(self._act_s.pop(0))


class Prophet:
    """Row i of a chunk is the number of the control step it is for, plus `bias` for each chunk made.

    Args:
        clock: What thinking spends the time of.
        latencies: Of one chunk after another [s]; the last goes on.
        length: Actions per chunk T.
        bias: Tells chunks apart.
        warmup: Chunks that do not count.
    """

    def __init__(
        self, clock: VirtualClock, latencies: Sequence[float], length: int = 5, *, bias: float = 0.0, warmup: int = 1
    ) -> None:
        self.clock, self.latencies, self.length, self.bias = clock, list(latencies), length, bias
        self.observed: list[int] = []
        self.num_resets = 0
        self._numbers = count(1 - warmup)
        self.spoil: Callable[[int, torch.Tensor], torch.Tensor] = lambda number, chunk: chunk

    def reset(self) -> None:
        self.num_resets += 1

    def predict_action_chunk(self, observation: int) -> torch.Tensor:
        self.observed.append(observation)
        self.clock.spend(self.latencies.pop(0) if len(self.latencies) > 1 else self.latencies[0])
        number = next(self._numbers)
        rows = torch.arange(observation, observation + self.length, dtype=torch.float32) + number * self.bias
        return self.spoil(number, torch.stack([rows, -rows], 1)[None])


def loop_of(policy: Any, robot: Odometer, **options: Any) -> bac.ControlLoop:
    """At 10 Hz, one chunk before time starts, -1 where it must be safe."""
    chosen = {"control_hz": 10, "safe_action": [-1.0, -1.0], "warmup": 1, "clock": robot.clock, **options}
    return bac.ControlLoop(policy, robot, **chosen)
