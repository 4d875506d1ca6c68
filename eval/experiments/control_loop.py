"""Measure whether `bac.ControlLoop` keeps its deadlines on this machine, for a minute.

During the same minute a second process only sleeps from one control step to the next. The deadlines that this process
misses are the operating system's fault. ``python -m eval.experiments.control_loop`` prints both; with ``output=`` it
writes the loop.json of results/realtime.
"""

import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hydra
import torch

import bac
from bac.control import Quantiles, Statistics, Ticker, WallClock
from eval.setup.config import CONFIGS, log_to_terminal
from eval.setup.files import write_json
from eval.setup.provenance import command_line, processor

START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Bare:
    """The statistics of a loop that only sleeps.

    Attributes:
        missed_deadlines: As in `bac.control.Statistics`.
        jitter_s: As in `bac.control.Statistics` [s].
    """

    missed_deadlines: int
    jitter_s: Quantiles


class BusyPolicy:
    """A policy that multiplies matrices for a given time.

    Args:
        latency_s: Latency of a chunk [s].
        chunk_steps: Actions per chunk T.
    """

    def __init__(self, latency_s: float, chunk_steps: int) -> None:
        self._latency_s = latency_s
        self._chunk = torch.zeros(1, chunk_steps, 1)
        self._matrix = torch.eye(64)

    def reset(self) -> None:
        """Do nothing: this policy has no state."""

    def predict_action_chunk(self, observation: object) -> torch.Tensor:
        """Return a chunk of zeros after `latency_s`."""
        end = time.perf_counter() + self._latency_s
        while time.perf_counter() < end:
            self._matrix @ self._matrix
        return self._chunk


class NoRobot:
    """A robot that observes and does nothing."""

    def observe(self) -> None:
        """Return no observation."""

    def act(self, action: object) -> None:
        """Ignore the action."""


def compare(
    *, control_hz: float, num_steps: int, policy_s: float, chunk_steps: int, progress: bool = True
) -> tuple[Statistics, Bare]:
    """Run the control loop and the bare loop at the same time.

    Args:
        control_hz: Control steps per second of both loops [Hz].
        num_steps: Control steps of both loops.
        policy_s: Latency of a chunk [s].
        chunk_steps: Actions per chunk.
        progress: Print how long the run takes.

    Raises:
        RuntimeError: The process of the bare loop did not start.
        queue.Empty: The process of the bare loop died.
    """
    context = multiprocessing.get_context("spawn")
    ready, go, results = context.Event(), context.Event(), context.Queue()
    process = context.Process(target=_sleep_only, args=(control_hz, num_steps, ready, go, results), daemon=True)
    process.start()
    try:
        if not ready.wait(START_TIMEOUT_S):
            raise RuntimeError(f"the bare loop did not start within {START_TIMEOUT_S:g} s; run again")
        if progress:
            print(f"{num_steps / control_hz:g} s at {control_hz:g} Hz ...", flush=True)
        go.set()
        policy = BusyPolicy(policy_s, chunk_steps)
        loop = bac.ControlLoop(policy, NoRobot(), control_hz=control_hz, safe_action=[0.0])
        statistics = loop.run(num_steps)
        return statistics, results.get(timeout=START_TIMEOUT_S)
    finally:
        process.terminate()
        process.join(START_TIMEOUT_S)


def _sleep_only(control_hz: float, num_steps: int, ready: Any, go: Any, results: Any) -> None:
    ready.set()
    if not go.wait(START_TIMEOUT_S):
        return
    ticker, lateness = Ticker(WallClock(), control_hz), []
    while ticker.wait() < num_steps - 1:
        lateness.append(ticker.lateness_s)
    results.put(Bare(ticker.missed, Quantiles.of(lateness)))


def document_of(config: Any, statistics: Statistics, bare: Bare) -> dict[str, Any]:
    """The statistics of both loops, and their difference, as plain JSON types."""
    last_step = _num_steps(config) - 1
    return {
        "command": command_line(),
        "device": processor(),
        "settings": {key: config[key] for key in ("control_hz", "seconds", "policy_ms", "chunk_steps")},
        "loop": asdict(statistics),
        "bare": asdict(bare),
        "missed_beyond_the_operating_system": max(0, statistics.missed_deadlines - bare.missed_deadlines),
        "drift_ms": 1e3 * (statistics.duration_s - last_step / config.control_hz),
    }


def _num_steps(config: Any) -> int:
    return round(config.seconds * config.control_hz)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="control_loop")
def main(config: Any) -> None:
    """Run both loops, print their statistics, and write them if ``output=`` is set."""
    log_to_terminal()
    torch.set_num_threads(1)
    statistics, bare = compare(
        control_hz=config.control_hz,
        num_steps=_num_steps(config),
        policy_s=config.policy_ms / 1e3,
        chunk_steps=config.chunk_steps,
    )
    found = document_of(config, statistics, bare)
    beyond, drift_ms = found["missed_beyond_the_operating_system"], found["drift_ms"]
    print(statistics)
    print(f"a loop that only sleeps: {bare.missed_deadlines} missed deadlines; jitter [ms] {bare.jitter_s.scaled(1e3)}")
    print(f"missed beyond the operating system's own: {beyond}; end of the run off by {drift_ms:+.2f} ms")
    if config.output:
        write_json(Path(config.output), found)


if __name__ == "__main__":
    main()
