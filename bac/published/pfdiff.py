"""PFDiff: fewer evaluations by past and future scores (Wang et al., ICLR 2025, arXiv 2408.08822).

DDIM takes a grid of steps, PFDiff evaluates the denoiser at only one of `skips` + 1 of them. The noise predicted last
("past score") carries the sample ahead to a springboard. The noise predicted there ("future score") replaces the one
that DDIM would have needed, and makes the whole step from where the springboard started::

    grid          t0   t1   t2   t3   t4   t5   end       PFDiff-1: 4 evaluations for a grid of 6 and the end
    evaluated     x         x         x    x
    steps         |--->|-------->|-------->|--->|         the first and an odd last step are DDIM's

A sampler evaluates its denoiser at the scheduler's timesteps, so these are the places of the springboards, not of the
steps: each `step` finishes a step of the grid and hands out the next springboard. Where the springboard is in the
middle of the step (PFDiff-1, PFDiff-3_2), this is a midpoint rule of second order; elsewhere it is of first, as DDIM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bac.errors import ScheduleError
from bac.solvers.multistep import MultistepScheduler, level

Shares = tuple[float, float]
CLEAN: Shares = (1.0, 0.0)  # shares of clean actions and of noise at the end of a run


class Leg(NamedTuple):
    """One evaluation and the step that it makes, as places in the grid; the place after the last is the end.

    Attributes:
        start: Where the step starts.
        evaluated: Where the denoiser is evaluated: the springboard.
        stop: Where the step stops.
    """

    start: int
    evaluated: int
    stop: int


@dataclass(frozen=True)
class PFDiff:
    """PFDiff-k_h on DDIM. Its timesteps follow from its grid: ``Denoising(solver, solver.timesteps)``.

    The paper leaves clipping open. Clean actions are clipped in every step as the policy's noise scheduler clips them,
    as in diffusers' DDIM.

    Attributes:
        grid: Timesteps of DDIM, decreasing; the end of the run follows the last.
        skips: Steps of the grid that are not evaluated, after each that is; the paper's k, which is 1, 2 or 3.
        springboard: Steps from the beginning of a step to its springboard, in [1, `skips`]; the paper's h.

    Raises:
        ScheduleError: A number is out of range, or the grid does not decrease.
    """

    grid: tuple[int, ...]
    skips: int = 1
    springboard: int = 1

    def __post_init__(self) -> None:
        if not self.grid or list(self.grid) != sorted(set(self.grid), reverse=True) or self.grid[-1] < 0:
            raise ScheduleError(
                f"grid: must be timesteps from 0 on, each below the one before, got {self.grid}; for fewer "
                "evaluations or skips: PFDiff.even(num_evaluations, num_timesteps, skips=1)"
            )
        if not 1 <= self.springboard <= self.skips:
            raise ScheduleError(
                f"springboard: must be in [1, skips], got {self.springboard} with {self.skips} skips; the paper's are "
                "1_1, 2_1, 2_2, 3_1, 3_2 and 3_3"
            )

    @classmethod
    def even(cls, num_evaluations: int, num_timesteps: int, *, skips: int = 1, springboard: int = 1) -> PFDiff:
        """PFDiff on evenly spaced steps, the last of them at timestep 0.

        Args:
            num_evaluations: Evaluations of the denoiser in a run.
            num_timesteps: Timesteps that the denoiser was trained on.
            skips: See `PFDiff`.
            springboard: See `PFDiff`.

        Raises:
            ScheduleError: A number is out of range, or there are fewer timesteps than steps of the grid.
        """
        if num_evaluations < 1:
            raise ScheduleError(f"num_evaluations: must be at least 1, got {num_evaluations}")
        intervals = (num_evaluations - 1) * (skips + 1)
        last = num_timesteps - 1
        grid = tuple(last * place // intervals for place in range(intervals, -1, -1)) if intervals else (last,)
        return cls(grid, skips, springboard)

    @property
    def name(self) -> str:
        """The paper's: ``PFDiff-1``, ``PFDiff-2_1``."""
        return "PFDiff-1" if self.skips == 1 else f"PFDiff-{self.skips}_{self.springboard}"

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The evaluations in order. Where the grid ends within a step, that step is shorter."""
        legs, end = [Leg(0, 0, 1)], len(self.grid)
        while (start := legs[-1].stop) < end:
            left = end - start
            ahead = self.springboard if left > self.skips else min(1, left - 1)
            legs.append(Leg(start, start + ahead, min(start + self.skips + 1, end)))
        return tuple(legs)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Timesteps at which the denoiser is evaluated, `[K]`."""
        return tuple(self.grid[leg.evaluated] for leg in self.legs)

    def check(self, timesteps: Sequence[float]) -> None:
        """Refuse timesteps other than the solver's own.

        Raises:
            ScheduleError: They are others.
        """
        if tuple(timesteps) != self.timesteps:
            raise ScheduleError(
                f"timesteps: {self.name} on this grid evaluates at {self.timesteps}, got {tuple(timesteps)}; give it "
                "solver.timesteps, or another grid"
            )

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> MultistepScheduler:
        """See `bac.solvers.Solver.scheduler`."""
        self.check(timesteps)
        return _PFDiffScheduler(trained, self)


class _PFDiffScheduler(MultistepScheduler):
    """Keeps the sample at which the current step starts, while the sampler holds the springboard."""

    def __init__(self, trained: Any, solver: PFDiff) -> None:
        shares = [*(level(float(trained.alphas_cumprod[timestep])) for timestep in solver.grid), CLEAN]
        self._steps = [(shares[leg.start], shares[leg.stop]) for leg in solver.legs]
        super().__init__(trained, solver.timesteps, ())

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self._started: Tensor | None = None

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        """Finish this step with the newest noise, and go ahead to the next springboard with it."""
        noise, sample = terms[1], terms[2]
        start, stop = self._steps[self._step]
        reached = ddim(sample if self._started is None else self._started, noise, start, stop, self.clip)
        self._started = reached
        ahead = self.levels[self._step + 1] if self._step + 1 < len(self.levels) else stop
        return reached if ahead == stop else ddim(reached, noise, stop, ahead, self.clip)


def ddim(sample: Tensor, noise: Tensor, here: Shares, there: Shares, clip: float | None) -> Tensor:
    """The sample at another noise level, by a given prediction of its noise (Song et al., ICLR 2021, eta = 0).

    Args:
        sample: `[B, ...]`.
        noise: Predicted noise, of the same shape.
        here: Shares of clean actions and of noise in `sample`.
        there: The same, in the result.
        clip: Half-width of the clip of clean actions, or None.
    """
    clean = (sample - here[1] * noise) / here[0]
    clean = clean if clip is None else clean.clamp(-clip, clip)
    return torch.add(there[0] * clean, noise, alpha=there[1])
