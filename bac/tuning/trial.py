"""One way to denoise, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bac.caching.schedule import Schedule
from bac.denoising import Denoising

DENSE = "dense"  # the family of the policy as it is


@dataclass(frozen=True)
class Trial:
    """One way to denoise, measured.

    Attributes:
        family: Its family: ``fewer steps, fitted multistep``, ``adaptive + bubbling``.
        denoising: The way to denoise.
        fit_error: Action error, or energy distance, on the fitting observations (see `bac.tuning.bench`).
        typical_error: Geometric mean of the action errors of each of these observations; the energy distance again.
        error: Action error, or energy distance, on held-out observations; None if it was not run on them.
        p50_s: Median latency [s]; predicted if `p95_s` is None.
        p95_s: 95th percentile of the latency [s]; None if it was not timed.
        other_error: Action error to the other reference of a flow-matching policy, on the fitting observations: a fine
            run of its flow, or its own steps; else None.
    """

    family: str
    denoising: Denoising
    fit_error: float
    typical_error: float
    error: float | None = None
    p50_s: float = 0.0
    p95_s: float | None = None
    other_error: float | None = None

    @property
    def name(self) -> str:
        """Family and way to denoise, in one line of a table."""
        parts = [part for part in self.denoising.name.split(", ") if part not in self.family]
        return ", ".join([self.family, *parts])

    @property
    def places(self) -> str:
        """Where its steps are, in words: timesteps, or the steps at which the first block updates."""
        schedule = self.denoising.schedule
        if self.denoising.timesteps:
            return "at " + " ".join(f"{time:g}" for time in self.denoising.timesteps)
        if not isinstance(schedule, Schedule):
            return ""
        return "updates " + " ".join(map(str, next(iter(schedule.update_steps.values()))))

    def to_document(self) -> dict[str, Any]:
        """The trial as plain JSON types, latencies in seconds."""
        return {
            "name": self.name,
            "family": self.family,
            "denoising": self.denoising.to_document(),
            "sweeps": self.denoising.sweeps,
            "typical_error": self.typical_error,
            "fit_error": self.fit_error,
            "held_out_error": self.error,
            "other_error": self.other_error,
            "p50_s": self.p50_s,
            "p95_s": self.p95_s,
        }


def distinct_names(trials: Sequence[Trial]) -> list[str]:
    """Names of which no two are the same: where two are, their steps are added, and a number if those are the same."""
    names = [trial.name for trial in trials]
    names = [f"{name}, {t.places}" if names.count(name) > 1 else name for name, t in zip(names, trials, strict=True)]
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[place] = f"{name} ({seen[name]})" if seen[name] > 1 else name
    return names
