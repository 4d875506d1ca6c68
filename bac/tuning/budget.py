"""The budget: the largest latency or action error that the user allows, or a number of fitted steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from bac.errors import BacError


class BudgetError(BacError, ValueError):
    """A budget is empty or contradictory, or cannot be met on this machine."""


@dataclass(frozen=True)
class Budget:
    """At most this latency, or at most this action error, or so many fitted steps of a flow-matching policy.

    Attributes:
        latency_s: Largest latency at the 95th percentile, before the margin is taken off [s]; None if the error
            decides.
        action_error: Largest root mean square error of the actions, normalised units; None if the latency decides.
        margin: Share of the latency that is kept free, in [0, 1).
        asked: The budget as the user wrote it.
        num_steps: Fitted steps, if nothing else was asked for; else None.
    """

    latency_s: float | None
    action_error: float | None
    margin: float
    asked: str
    num_steps: int | None = None

    @property
    def limit_s(self) -> float:
        """Largest latency at the 95th percentile, without the margin [s]; infinite if the error decides."""
        return float("inf") if self.latency_s is None else self.latency_s * (1 - self.margin)

    def __str__(self) -> str:
        if self.latency_s is None:
            return self.asked
        return f"{self.asked}: p95 below {1e3 * self.limit_s:.1f} ms ({self.margin:.0%} kept free)"

    @classmethod
    def of_steps(cls, num_steps: int) -> Budget:
        """So many fitted steps, at any latency and error: what a flow-matching policy gets without a budget."""
        return cls(None, None, 0.0, f"{num_steps} fitted steps, because no budget was given", num_steps)

    @classmethod
    def of(
        cls,
        *,
        target_latency_s: float | None = None,
        target_hz: float | None = None,
        max_action_error: float | None = None,
        control_hz: float | None = None,
        n_action_steps: int | None = None,
        margin: float = 0.1,
    ) -> Budget:
        """Make a budget from exactly one of the four ways to state it; see `bac.tune`.

        Raises:
            BudgetError: None or several are given, or a value is out of range.
        """
        if (control_hz is None) != (n_action_steps is None):
            raise BudgetError(
                "control_hz: needs n_action_steps, the actions executed of each chunk, and the other way round; a "
                "chunk has n_action_steps / control_hz seconds"
            )
        given = {
            "target_latency_s": target_latency_s,
            "target_hz": target_hz,
            "control_hz": control_hz,
            "max_action_error": max_action_error,
        }
        named = {name: value for name, value in given.items() if value is not None}
        if len(named) != 1:
            raise BudgetError(
                f"budget: give exactly one of {', '.join(given)}, got {', '.join(named) or 'none'}; "
                "for example target_hz=25"
            )
        numbers = named if n_action_steps is None else {**named, "n_action_steps": n_action_steps}
        for name, value in numbers.items():
            if not 0 < value < inf:  # NaN is neither
                raise BudgetError(f"{name}: must be a number above 0, got {value}")
        if not 0 <= margin < 1:
            raise BudgetError(f"margin: must be in [0, 1), a share of the latency, got {margin}")
        (name, value), *_ = named.items()
        asked = f"{name}={value:g}" + (f", n_action_steps={n_action_steps}" if n_action_steps else "")
        if name == "max_action_error":
            return cls(None, value, margin, asked)
        # control_hz: a chunk may take as long as its actions last. target_hz: one chunk per period.
        latency = value if name == "target_latency_s" else (n_action_steps or 1) / value
        return cls(latency, None, margin, asked)
