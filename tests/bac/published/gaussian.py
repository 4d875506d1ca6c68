"""Gaussian data, whose denoiser is linear and whose probability-flow ODE has a known end.

In units of clean actions, with data of standard deviation `SPREAD`, the noise predicted at a ratio r of noise to clean
actions is ``r y / (SPREAD^2 + r^2)``, and the run follows ``y = constant * sqrt(SPREAD^2 + r^2)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bac.solvers import Solver
from tests.bac.solvers.samplers import ddim, trained

SPREAD, NOISIEST, TIMESTEPS = 0.5, 3.0, 100_000
Denoiser = Callable[[Tensor, float], Tensor]


def ratios_of(ratios: Sequence[float] | Tensor) -> Tensor:
    """`alphas_cumprod` at which noise is this many times the clean actions, float64."""
    return 1 / (1 + torch.as_tensor(ratios, dtype=torch.float64).square())


ALPHAS = ratios_of(torch.arange(TIMESTEPS + 1, dtype=torch.float64) / TIMESTEPS * NOISIEST)


def gaussian(sample: Tensor, timestep: float) -> Tensor:
    """The noise that the best denoiser predicts, at timesteps of `ALPHAS`."""
    ratio = float(timestep) / TIMESTEPS * NOISIEST
    return ratio * sample * math.sqrt(1 + ratio**2) / (SPREAD**2 + ratio**2)


def end_of(start: Tensor) -> Tensor:
    """Where the ODE ends that begins at the noisiest timestep."""
    return start * math.sqrt(1 + NOISIEST**2) * SPREAD / math.sqrt(SPREAD**2 + NOISIEST**2)


def grid_of(size: int) -> tuple[int, ...]:
    """Timesteps evenly spaced from the noisiest to one interval before the end."""
    return tuple(round(TIMESTEPS * (size - place) / size) for place in range(size))


def run(scheduler: Any, start: Tensor, denoiser: Denoiser = gaussian) -> Tensor:
    """One denoising run as a sampler makes it."""
    scheduler.set_timesteps(len(scheduler.timesteps))
    sample = start
    for timestep in scheduler.timesteps:
        sample = scheduler.step(denoiser(sample, float(timestep)), timestep, sample).prev_sample
    return sample


def error(make: Callable[[tuple[int, ...]], Solver] | None, size: int) -> float:
    """Distance to the end of the ODE of a solver on `grid_of(size)`, which evaluates where it says; None is DDIM."""
    grid = grid_of(size)
    solver: Any = ddim(ALPHAS, grid) if make is None else make(grid)
    timesteps = getattr(solver, "timesteps", grid)
    start = torch.ones(1, 1, dtype=torch.float64)
    return float((run(solver.scheduler(trained(ALPHAS), timesteps), start) - end_of(start)).abs())
