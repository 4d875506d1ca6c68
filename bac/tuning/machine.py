"""What a chunk costs on this machine: a fixed part, a part per denoising step, and a part per sweep of the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bac.denoising import Denoising


@dataclass(frozen=True)
class Machine:
    """Fitted seconds: ``fixed + per_step K + per_sweep sweeps``.

    Attributes:
        fixed_s: Of a chunk, whatever its steps [s].
        per_step_s: Of a denoising step without its blocks [s].
        per_sweep_s: Of all blocks, once [s].
    """

    fixed_s: float
    per_step_s: float
    per_sweep_s: float

    @classmethod
    def fit(cls, ways: Sequence[Denoising], seconds: Sequence[float]) -> Machine:
        """Least relative squares with no negative part.

        Args:
            ways: At least two, of different cost; each tells its number of steps.
            seconds: Measured for each [s].
        """
        rows = np.array([(1.0, *_work(way)) for way in ways])
        times = np.asarray(seconds, dtype=float)
        free = [0, 1, 2]
        while True:
            parts = np.zeros(3)
            parts[free] = np.linalg.lstsq(rows[:, free] / times[:, None], np.ones(len(times)), rcond=None)[0]
            if (parts >= 0).all():
                return cls(*map(float, parts))
            free.remove(int(parts.argmin()))

    def seconds(self, way: Denoising) -> float:
        """Expected latency [s]."""
        steps, sweeps = _work(way)
        return self.fixed_s + self.per_step_s * steps + self.per_sweep_s * sweeps

    def times(self, factor: float) -> Machine:
        """The same machine, so many times as slow."""
        return Machine(*(factor * part for part in (self.fixed_s, self.per_step_s, self.per_sweep_s)))

    def __str__(self) -> str:
        parts = (self.fixed_s, self.per_step_s, self.per_sweep_s)
        return "a chunk takes {:.2f} ms + {:.3f} ms x steps + {:.2f} ms x sweeps".format(
            *(1e3 * part for part in parts)
        )


def _work(way: Denoising) -> tuple[int, float]:
    """Evaluations and sweeps of a run."""
    assert way.num_evaluations is not None and way.sweeps is not None  # a tuner's ways tell both
    return way.num_evaluations, way.sweeps
