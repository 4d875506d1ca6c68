"""What every solver is: a value that makes the noise scheduler a sampler steps with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Solver(Protocol):
    """Advances the sample from one noise level to the next. Frozen."""

    @property
    def name(self) -> str:
        """As files and tables say it: ``DPM-Solver++``."""

    def check(self, timesteps: Sequence[float]) -> None:
        """Refuse timesteps that the solver cannot take.

        Raises:
            ScheduleError: It cannot.
        """

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> Any:
        """A noise scheduler as diffusers' samplers use one; making it changes nothing.

        Args:
            trained: The noise scheduler that the denoiser belongs to: noise levels, what is predicted, how it is
                clipped.
            timesteps: Decreasing, `[K]`. The scheduler takes these whatever number of steps it is told.
        """
