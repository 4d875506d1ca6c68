"""The protocol of solvers: a value that makes the noise scheduler for a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Solver(Protocol):
    """Advances the sample from one noise level to the next. Frozen."""

    @property
    def name(self) -> str:
        """Name in files and tables: ``DPM-Solver++``."""

    def check(self, timesteps: Sequence[float]) -> None:
        """Refuse timesteps that the solver cannot take.

        Raises:
            ScheduleError: The solver cannot take `timesteps`.
        """

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> Any:
        """Make a noise scheduler with the interface of diffusers. `trained` is left unchanged.

        Args:
            trained: The denoiser's own noise scheduler: noise levels, kind of prediction, clipping.
            timesteps: Decreasing, `[K]`. The scheduler uses these, whatever number of steps it is given.
        """
