"""Fewer steps that every policy has without being fitted: the rivals of whatever is made for it."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from bac.adapters.host import Host
from bac.denoising import Denoising
from bac.errors import ScheduleError
from bac.solvers import DRAWING, SOLVERS, injects_noise

USUAL = (5, 3, 2)  # numbers of steps to look at where nobody asks for others


def rivals(host: Host, counts: Iterable[int]) -> dict[str, Denoising]:
    """The policy with fewer of its own steps, by name; where it takes other solvers, with DPM-Solver++'s too.

    Args:
        host: The policy.
        counts: Numbers of steps. Those that are not fewer than its own are left out.

    Raises:
        ScheduleError: Its number of steps cannot be changed, or a number is below 1.
    """
    wanted = sorted(set(counts), reverse=True)
    if wanted and wanted[-1] < 1:
        raise ScheduleError(f"steps: must be at least 1, got {wanted[-1]}")
    fewer = [count for count in wanted if host.num_steps is None or count < host.num_steps]
    if host.takes_fewer_steps:
        return {f"{count} own step{'s' if count > 1 else ''}": Denoising(num_steps=count) for count in fewer}
    if not host.takes_solvers:
        why = host.why_no_solver or f"the steps of {type(host.policy).__name__} are part of it"
        raise ScheduleError(f"steps: their number cannot be changed ({why}); leave out the rivals: --no-rivals")
    own = DRAWING[0] if injects_noise(host) else SOLVERS[0]
    ways = [Denoising(solver, _even(host, count)) for solver in (own, SOLVERS[1]) for count in fewer]
    return {way.name: way for way in ways}


def as_many(way: Denoising) -> int:
    """Own steps that cost about as much as a way: its sweeps of the blocks, rounded up; 0 if only a run tells."""
    return ceil(way.sweeps or way.num_evaluations or 0)


def _even(host: Host, count: int) -> tuple[float, ...]:
    """Every so many of the policy's own timesteps, from the first one on."""
    grid = host.timesteps
    return tuple(grid[place * len(grid) // count] for place in range(count))
