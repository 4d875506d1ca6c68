"""A cost model of a chunk on this machine: a fixed part, a part per denoising step, and a part per sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bac.denoising import Denoising


@dataclass(frozen=True)
class Machine:
    """Fitted seconds: ``fixed + per_step K + per_sweep sweeps``.

    Attributes:
        fixed_s: Time of a chunk without its steps [s].
        per_step_s: Time of a denoising step without its blocks [s].
        per_sweep_s: Time of one update of every block [s].
    """

    fixed_s: float
    per_step_s: float
    per_sweep_s: float

    @classmethod
    def fit(cls, ways: Sequence[Denoising], seconds: Sequence[float]) -> Machine:
        """Fit by least squares of the relative errors, without negative parts.

        Args:
            ways: At least two ways to denoise of different cost, each with a known number of steps.
            seconds: Measured latency of each [s].
        """
        rows = np.array([(1.0, *_work(way)) for way in ways])
        times = np.asarray(seconds, dtype=float)
        free = [0, 1, 2]
        while True:
            parts = np.zeros(3)
            parts[free] = np.linalg.lstsq(rows[:, free] / times[:, None], np.ones(len(times)), rcond=None)[0]
            if (parts >= 0).all():
                return cls(*map(float, parts))
            free.remove(int(parts.argmin()))  # fix the most negative part at 0, and fit the others again

    def seconds(self, way: Denoising) -> float:
        """Expected latency [s]."""
        steps, sweeps = _work(way)
        return self.fixed_s + self.per_step_s * steps + self.per_sweep_s * sweeps

    def times(self, factor: float) -> Machine:
        """The same machine, slower by a factor."""
        return Machine(*(factor * part for part in (self.fixed_s, self.per_step_s, self.per_sweep_s)))

    def __str__(self) -> str:
        parts = (self.fixed_s, self.per_step_s, self.per_sweep_s)
        return "a chunk takes {:.2f} ms + {:.3f} ms x steps + {:.2f} ms x sweeps".format(
            *(1e3 * part for part in parts)
        )


def _work(way: Denoising) -> tuple[int, float]:
    """Evaluations and sweeps of a run."""
    assert way.num_evaluations is not None and way.sweeps is not None  # the tuner sets K everywhere
    return way.num_evaluations, way.sweeps
