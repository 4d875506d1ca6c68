"""Euler's method and its second-order kin at chosen times, as coefficients for flow-matching policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from bac.errors import ScheduleError
from bac.solvers.multistep import Coefficients


@runtime_checkable
class FlowSolver(Protocol):
    """A solver that is a table of coefficients, and so advances flow-matching policies too."""

    def rows(self, times: Sequence[float]) -> tuple[Coefficients, ...]:
        """Coefficients of every step (see `bac.solvers.Multistep`), given shares of noise, `[K]`, decreasing."""


@dataclass(frozen=True)
class AdamsBashforth:
    """Extrapolates the velocity from its last values: one for Euler's method, two for the second order.

    A flow-matching policy's own loop is Euler's method at even times; at chosen times it needs fewer of them.

    Attributes:
        order: 1 or 2.
    """

    order: int

    @property
    def name(self) -> str:
        """``Euler`` or ``Adams-Bashforth``."""
        return "Euler" if self.order == 1 else "Adams-Bashforth"

    def check(self, timesteps: Sequence[float]) -> None:
        """Accept any decreasing timesteps."""

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> Any:
        """Refuse: diffusers' noise schedulers have steps of their own kind.

        Raises:
            ScheduleError: Always.
        """
        raise ScheduleError(
            f"solver: {self.name} is for flow-matching policies; a diffusion policy takes DPM-Solver++ or the "
            "coefficients that bac.tune(policy, batches, ...) fits"
        )

    def rows(self, times: Sequence[float]) -> tuple[Coefficients, ...]:
        """See `FlowSolver.rows`. Velocity is noise - clean, and a step takes its width of it off the sample."""
        widths = [here - after for here, after in zip(times, (*times[1:], 0.0), strict=True)]
        found: list[Coefficients] = []
        for step, width in enumerate(widths):
            past = 0.0 if self.order == 1 or step == 0 else 0.5 * width * width / widths[step - 1]
            now = width + past
            found.append((now, -now, 1.0, -past, past)[: 5 if step else 3])
        return tuple(found)


FLOW_SOLVERS = (AdamsBashforth(1), AdamsBashforth(2))
