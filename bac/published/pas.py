"""PAS: learned coordinates correct the directions of DDIM's worst steps (Wang et al., ICML 2025, arXiv 2411.06503).

Write a sample as clean actions plus `ratio` times noise (divide it by its share of clean actions). DDIM then goes
straight, along the predicted noise `d`: ``next = here + (next ratio - ratio) d``. What it gets wrong lies nearly in the
span of the few directions that the run has had. So PAS takes `d` and the first principal directions of the run so far
(its noisy beginning, and the directions of its steps), makes them orthonormal, and corrects ``d`` to
``c1 u1 + c2 u2 + ...`` with coordinates that all samples share. They are learned step by step on a recorded dense run,
where the corrected step is to end at the dense run's sample. A step whose error falls too little stays DDIM's, which
leaves about ten numbers.

One coordinate for all samples replaces the *length* of d by a mean length. Images have so many pixels that all lengths
are alike; action chunks do not. `relative` coordinates are in units of each sample's own length. They are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from bac.adapters.host import Host
from bac.errors import ScheduleError
from bac.solvers.fitting import END, Run
from bac.solvers.interceptor import scheduler_swaps, swapped
from bac.solvers.multistep import MultistepScheduler

Coordinates = tuple[float, ...]
NUM_DIRECTIONS = 4  # the paper's, in its scripts
TOLERANCE = 1e-4  # the paper's, in its scripts
NEGLIGIBLE = 1e-6  # length of what is left of a unit vector that lies in the span of others


@dataclass(frozen=True)
class PAS:
    """PAS on DDIM; `fit` finds the coordinates. Frozen, checked when made, and printed as a table.

    A direction is what leads from the predicted clean actions to the sample. So where clean actions are clipped, the
    noise is derived again from them, and an uncorrected step is first-order DPM-Solver++'s.

    Attributes:
        coordinates: Coordinates of every step's direction, `[K, .]`: along the denoiser's own first, then along the
            principal ones. An empty row leaves the step to DDIM.
        relative: Coordinates are in units of the length of the denoiser's own direction. False is the paper's.

    Raises:
        ScheduleError: There is no step, a row is longer than its step has directions, or a number is not finite.
    """

    coordinates: tuple[Coordinates, ...]
    relative: bool = False

    def __post_init__(self) -> None:
        if not self.coordinates:
            raise ScheduleError("coordinates: must have a row for every step, got none; ((),) is DDIM in one step")
        for step, row in enumerate(self.coordinates):
            if len(row) > step + 2:
                raise ScheduleError(f"coordinates of step {step}: at most {step + 2} directions exist, got {len(row)}")
            if not all(map(isfinite, row)):
                raise ScheduleError(f"coordinates of step {step}: must be finite, got {row}; fit again")

    @property
    def name(self) -> str:
        """``PAS``, or ``PAS, relative``."""
        return "PAS, relative" if self.relative else "PAS"

    def check(self, timesteps: Sequence[float]) -> None:
        """Refuse timesteps that are not one for each row of coordinates.

        Raises:
            ScheduleError: There are more or fewer.
        """
        if len(timesteps) != len(self.coordinates):
            raise ScheduleError(
                f"timesteps: must be {len(self.coordinates)}, one for each row of coordinates, got {len(timesteps)}"
            )

    def scheduler(self, trained: Any, timesteps: Sequence[float]) -> MultistepScheduler:
        """See `bac.solvers.Solver.scheduler`."""
        self.check(timesteps)
        return _PASScheduler(trained, timesteps, self)

    def __str__(self) -> str:
        rows = (" ".join(f"{value:10.4f}" for value in row) or "DDIM" for row in self.coordinates)
        return "\n".join(["step  coordinates", *(f"{step:4}  {row}" for step, row in enumerate(rows))])


def fit(
    host: Host,
    run: Run,
    states: dict[int, Tensor],
    timesteps: Sequence[int],
    *,
    num_directions: int = NUM_DIRECTIONS,
    tolerance: float = TOLERANCE,
    relative: bool = False,
) -> PAS:
    """Fit the coordinates in one run of the few steps, each on the states that the corrected steps before it reach.

    The loss is the mean squared distance to the dense run's sample, divided by its share of clean actions. It is
    quadratic, so each step is solved in closed form. (The paper's scripts descend its mean absolute value.)

    Args:
        host: The policy; its sampler takes solvers.
        run: Makes one denoising run of all observations to fit on, always on the same noise.
        states: Samples of the dense run by timestep, and at `END`; see `bac.solvers.recorded`.
        timesteps: Decreasing, and among those of the dense run.
        num_directions: Directions to correct in, at most; early steps have fewer.
        tolerance: A step is corrected if that lowers its loss by more than this.
        relative: See `PAS`.

    Raises:
        ScheduleError: A timestep is not of the dense run, or a number is out of range.
    """
    if missing := [timestep for timestep in timesteps if int(timestep) not in states]:
        raise ScheduleError(f"timesteps: must be of the {len(states) - 1} of the recorded run, got {missing[0]}")
    if num_directions < 1 or not tolerance >= 0:
        raise ScheduleError(
            f"num_directions, tolerance: must be at least 1 and 0, got {num_directions} and {tolerance}"
        )
    base = PAS(((),) * len(timesteps), relative)
    search = _Search(host.sampler_owner.noise_scheduler, timesteps, base, states, num_directions, tolerance)
    with swapped(host, scheduler_swaps(host, search, len(timesteps))):
        run()
    return PAS(tuple(search.found), relative)


class _PASScheduler(MultistepScheduler):
    """DDIM that corrects the direction of some steps. It keeps the directions of a run until the next."""

    def __init__(self, trained: Any, timesteps: Sequence[float], solver: PAS) -> None:
        self.solver = solver
        super().__init__(trained, timesteps, ())

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self._past: tuple[Tensor, ...] = ()  # the noisy beginning, then the direction of every step, `[B, D]` each

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        clean, _, sample, *_ = terms
        (here, noise), (there, left) = (*self.levels, (1.0, 0.0))[self._step : self._step + 2]
        direction = (sample - here * clean) / noise
        after = there * clean + left * direction
        scaled, own = (sample / here).flatten(1), direction.flatten(1)
        past = self._past or (scaled,)
        length = left / there - noise / here  # of the step, in units of the direction
        if row := self.row(own, past, scaled, after.flatten(1) / there, length):
            found = turned(directions(own, past, scaled, len(row)), row, own, self.solver.relative)
            after = torch.add(after, (found - own).view_as(after), alpha=there * length)
            own = found
        self._past = (*past, own)
        return after

    def row(self, own: Tensor, past: Sequence[Tensor], scaled: Tensor, after: Tensor, length: float) -> Coordinates:
        """Coordinates of this step. The search solves for them with the arguments, the samples of which are scaled."""
        return self.solver.coordinates[self._step]


class _Search(_PASScheduler):
    """Solves for the coordinates of a step just before the step needs them, and drops them if they gain too little."""

    def __init__(
        self,
        trained: Any,
        timesteps: Sequence[float],
        base: PAS,
        states: dict[int, Tensor],
        num_directions: int,
        tolerance: float,
    ) -> None:
        self._targets = [states[int(timestep)] for timestep in (*timesteps[1:], END)]
        self._num_directions, self._tolerance = num_directions, tolerance
        super().__init__(trained, timesteps, base)

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.found: list[Coordinates] = []

    def row(self, own: Tensor, past: Sequence[Tensor], scaled: Tensor, after: Tensor, length: float) -> Coordinates:
        there = (*self.levels, (1.0, 0.0))[self._step + 1][0]
        missed = self._targets[self._step].flatten(1).double() / there - after.double()
        count = min(self._num_directions, len(past) + 1, own.shape[1])
        columns = directions(own, past, scaled, count).double() * (length * unit_of(own, self.solver.relative)).double()
        row, loss = solve(columns, missed + length * own.double())
        if not loss + self._tolerance < float(missed.square().mean()):
            row = ()
        self.found.append(row)
        return row


def directions(own: Tensor, past: Sequence[Tensor], scaled: Tensor, count: int) -> Tensor:
    """The denoiser's direction and the principal directions of the run so far, orthonormal, `[B, count, D]`.

    Principal directions have no sign of their own: they are turned to where the run has gone so far. A direction that
    lies in the span of those before is zero.

    Args:
        own: The denoiser's direction, `[B, D]`.
        past: The noisy beginning of the run, and the directions of the steps before, `[B, D]` each.
        scaled: The sample divided by its share of clean actions, `[B, D]`.
        count: Number of directions, at most one more than `past` has entries.
    """
    rows = torch.stack([*past, own], dim=1).double()
    principal = torch.linalg.svd(rows - rows.mean(dim=1, keepdim=True), full_matrices=False).Vh[:, : count - 1]
    gone = (scaled - past[0] if len(past) > 1 else -past[0]).double()  # a run begins by leaving its noise
    found = [_unit(own.double())]
    for vector in principal.unbind(1):
        for known in found:
            vector = vector - (vector * known).sum(1, keepdim=True) * known
        vector = _unit(vector)
        found.append(torch.where((vector * gone).sum(1, keepdim=True) > 0, vector, -vector))
    return torch.stack(found, dim=1).to(own.dtype)


def turned(basis: Tensor, row: Coordinates, own: Tensor, relative: bool) -> Tensor:
    """The direction with these coordinates in the basis, `[B, D]`."""
    total = basis[:, 0] * row[0]
    for place, value in enumerate(row[1:], start=1):
        total = torch.add(total, basis[:, place], alpha=value)
    return total * unit_of(own, relative)[:, 0]


def unit_of(own: Tensor, relative: bool) -> Tensor:
    """Length of the denoiser's direction if coordinates are in units of it, else 1, `[B, 1, 1]`."""
    return own.norm(dim=1)[:, None, None] if relative else own.new_ones(1, 1, 1)


def solve(columns: Tensor, wanted: Tensor) -> tuple[Coordinates, float]:
    """Coordinates of the sum of columns with the least mean squared distance to what is wanted, and that distance.

    Args:
        columns: `[B, M, D]`, float64; a column of zeros gets the coordinate 0.
        wanted: `[B, D]`.
    """
    products = torch.einsum("bmd,bnd->mn", columns, columns)
    row = torch.linalg.pinv(products, hermitian=True) @ torch.einsum("bmd,bd->m", columns, wanted)
    loss = (torch.einsum("bmd,m->bd", columns, row) - wanted).square().mean()
    return tuple(row.tolist()), float(loss)


def _unit(vector: Tensor) -> Tensor:
    length = vector.norm(dim=1, keepdim=True)
    return torch.where(length > NEGLIGIBLE, vector / length.clamp_min(NEGLIGIBLE), torch.zeros_like(vector))
