"""What was measured of a way to denoise when it was chosen; it travels with it in ``bac.json``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bac.errors import ScheduleError
from bac.files import brief

QUANTITIES = ("action error", "energy distance")


@dataclass(frozen=True)
class Measured:
    """Distance of the action chunks to those of the policy as it was configured, on observations that chose nothing.

    Attributes:
        quantity: ``energy distance`` between distributions of chunks, if the policy draws noise during the run;
            otherwise ``action error``, root mean square on the same noise. Normalised action units.
        value: The distance.
        low: Lower bound of its 95 % interval over observations.
        high: Upper bound, likewise.
        floor: Upper bound of the policy's distance to itself, from other draws; 0 for an action error.
        shift: Root mean square difference of the mean chunks.
        spread: Spread of the chunks given the observation, divided by the policy's own; None for an action error.
        num_observations: Observations.
        num_draws: Chunks for each observation.
        reference: The policy's own solver and steps: ``DDPMScheduler, 100 steps``.

    Raises:
        ScheduleError: A number is not finite or out of range, or the quantity is unknown.
    """

    quantity: str
    value: float
    low: float
    high: float
    floor: float
    shift: float | None
    spread: float | None
    num_observations: int
    num_draws: int
    reference: str

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, (int, float)) and not abs(value) <= sys.float_info.max:
                raise ScheduleError(f"measured: {name} must be finite, got {brief(value)}; tune again")
        if self.quantity not in QUANTITIES:
            raise ScheduleError(
                f"measured: quantity must be one of {', '.join(QUANTITIES)}, got {self.quantity!r:.40}; tune again"
            )
        if not self.low <= self.high:
            raise ScheduleError(f"measured: low must not be above high, got {self.low:g} and {self.high:g}; tune again")
        if min(self.num_observations, self.num_draws) < 1:
            raise ScheduleError(
                f"measured: num_observations and num_draws must be at least 1, got {self.num_observations} and "
                f"{self.num_draws}; tune again"
            )

    @property
    def warning(self) -> str | None:
        """One sentence if the distributions of chunks differ beyond the policy's distance to itself; else None."""
        if self.quantity != "energy distance" or self.low <= self.floor:
            return None
        spread = "" if self.spread is None else f", spread {self.spread:.2f} of the policy's"
        return (
            f"its action chunks differ from those of {self.reference}: energy distance {self.value:.4f} "
            f"[{self.low:.4f}, {self.high:.4f}], the policy to itself below {self.floor:.4f}{spread}. Play episodes "
            "before you rely on it, or allow more time: more steps, or a cache on the policy's own solver"
        )

    def __str__(self) -> str:
        floor = f"; the policy to itself below {self.floor:.4f}" if self.floor else ""
        return (
            f"{self.quantity} {self.value:.4f} [{self.low:.4f}, {self.high:.4f}] to {self.reference}, "
            f"{self.num_observations} observations x {self.num_draws} draws{floor}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Measured:
        """Inverse of `to_dict`.

        Raises:
            ScheduleError: A field is missing, unknown or of another type.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(document, Mapping) or set(document) != names:
            wrong = ", ".join(sorted(map(str, set(document) ^ names))) if isinstance(document, Mapping) else "all"
            raise ScheduleError(f"measured: a field is missing or unknown ({brief(wrong)}); tune again")
        for name, value in document.items():
            allowed: tuple[type, ...] = (str,) if name in ("quantity", "reference") else (int, float)
            if isinstance(value, bool) or not (isinstance(value, allowed) or (value is None and name in _OPTIONAL)):
                raise ScheduleError(f"measured: {name} has another type, got {brief(repr(value))}; tune again")
        return cls(**document)


_OPTIONAL = ("shift", "spread")
