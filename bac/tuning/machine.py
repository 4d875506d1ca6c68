"""What a chunk costs on this machine: a fixed part, a part per denoising step, and a part per sweep of the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bac.tuning.candidate import Candidate


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
    def fit(cls, candidates: Sequence[Candidate], seconds: Sequence[float]) -> Machine:
        """Least relative squares with no negative part.

        Args:
            candidates: At least two, of different cost.
            seconds: Measured for each [s].
        """
        rows = np.array([(1.0, candidate.num_steps, candidate.sweeps) for candidate in candidates])
        times = np.asarray(seconds, dtype=float)
        free = [0, 1, 2]
        while True:
            parts = np.zeros(3)
            parts[free] = np.linalg.lstsq(rows[:, free] / times[:, None], np.ones(len(times)), rcond=None)[0]
            if (parts >= 0).all():
                return cls(*map(float, parts))
            free.remove(int(parts.argmin()))

    def seconds(self, candidate: Candidate) -> float:
        """Expected latency [s]."""
        return self.fixed_s + self.per_step_s * candidate.num_steps + self.per_sweep_s * candidate.sweeps

    def times(self, factor: float) -> Machine:
        """The same machine, so many times as slow."""
        return Machine(*(factor * part for part in (self.fixed_s, self.per_step_s, self.per_sweep_s)))

    def __str__(self) -> str:
        parts = (self.fixed_s, self.per_step_s, self.per_sweep_s)
        return "a chunk takes {:.2f} ms + {:.3f} ms x steps + {:.2f} ms x sweeps".format(
            *(1e3 * part for part in parts)
        )
