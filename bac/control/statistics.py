"""Measurements of a control loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bac.control.jerk import Jerk, JerkMeter
from bac.control.timeline import Actions

NEWEST = 200_000  # samples kept for quantiles: more than an hour at 50 Hz


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of a measured quantity, in its unit; all NaN if it was never measured."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Quantiles:
        """Quantiles of samples, linearly interpolated."""
        values = np.fromiter(samples, dtype=float)
        return cls(*np.quantile(values, (0.5, 0.95, 0.99, 1.0)).tolist()) if len(values) else cls(*[float("nan")] * 4)

    def __str__(self) -> str:
        return f"p50 {self.p50:.4g}  p95 {self.p95:.4g}  p99 {self.p99:.4g}  max {self.max:.4g}"

    def scaled(self, factor: float) -> Quantiles:
        """The same quantiles in another unit."""
        return Quantiles(self.p50 * factor, self.p95 * factor, self.p99 * factor, self.max * factor)


@dataclass(frozen=True)
class Statistics:
    """Measurements of a control loop. Counts are of the whole run, quantiles of its newest 200,000 samples.

    Attributes:
        control_hz: Control steps per second [Hz].
        num_steps: Control steps that sent an action.
        duration_s: Time from the first to the last of them [s].
        num_chunks: Action chunks that arrived.
        missed_deadlines: Control steps that were not over when the next was due, or were skipped.
        held_steps: Control steps without an action of their own, because the next chunk was late.
        latency_s: Time from observation to action chunk [s].
        jitter_s: Delay of a control step's beginning after it was due [s].
        observation_age_s: Age of the observation behind an action when the action is sent [s].
        discontinuity: Distance between the actions of two chunks where one takes over, in the action's unit.
        jerk: Third difference of the actions sent, inside chunks and at the seams between them [action's unit per
            control step^3]. Blended actions belong to the new chunk.
    """

    control_hz: float
    num_steps: int
    duration_s: float
    num_chunks: int
    missed_deadlines: int
    held_steps: int
    latency_s: Quantiles
    jitter_s: Quantiles
    observation_age_s: Quantiles
    discontinuity: Quantiles
    jerk: Jerk

    def __str__(self) -> str:
        title = f"{self.num_steps} control steps at {self.control_hz:g} Hz in {self.duration_s:.2f} s, "
        title += f"{self.num_chunks} chunks, {self.missed_deadlines} missed deadlines, {self.held_steps} held steps"
        rows: dict[str, Quantiles | Jerk] = {
            "latency [ms]": self.latency_s.scaled(1e3),
            "jitter [ms]": self.jitter_s.scaled(1e3),
            "observation age [ms]": self.observation_age_s.scaled(1e3),
            "discontinuity": self.discontinuity,
            "jerk": self.jerk,
        }
        return "\n".join([title] + [f"  {name:20}  {values}" for name, values in rows.items()])


class LoopRecorder:
    """Collects the samples and counts of `Statistics`."""

    def __init__(self, control_hz: float) -> None:
        self._control_hz = control_hz
        self.num_steps = self.num_chunks = self.held_steps = self.missed_deadlines = 0
        self.duration_s = 0.0
        self.latency_s, self.jitter_s, self.observation_age_s, self.discontinuity = (
            deque[float](maxlen=NEWEST) for _ in range(4)
        )
        self._meter, self._next_step = JerkMeter(), 0

    def sent(self, step: int, action: Actions, chunk: int | None) -> None:
        """Note the action of a control step, and the number of its chunk; None if it was held."""
        if step != self._next_step:  # control steps were skipped
            self._meter.skip()
        self._meter.add(action, chunk)
        self._next_step = step + 1
        self.num_steps += 1

    def statistics(self) -> Statistics:
        """The statistics so far."""
        return Statistics(
            self._control_hz,
            self.num_steps,
            self.duration_s,
            self.num_chunks,
            self.missed_deadlines,
            self.held_steps,
            Quantiles.of(self.latency_s),
            Quantiles.of(self.jitter_s),
            Quantiles.of(self.observation_age_s),
            Quantiles.of(self.discontinuity),
            self._meter.jerk(),
        )
