"""Fewer steps that every policy has without being fitted: the rivals of whatever is made for it."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, floor

from bac.adapters.host import Host
from bac.denoising import Denoising
from bac.errors import ScheduleError
from bac.solvers import DRAWING, SOLVERS, injects_noise

USUAL = (5, 3, 2)  # numbers of steps to look at where nobody asks for others
AS_FAST = 1.05  # a rival may take so many times as long: latencies are known to a few percent


def rivals(host: Host, counts: Iterable[int]) -> dict[str, Denoising]:
    """The policy with fewer of its own steps, by name; where it takes other solvers, with DPM-Solver++'s too.

    A deterministic diffusion policy's own solver stands in as the first order of DPM-Solver++, which is DDIM but for
    clipping. Timesteps are evenly spaced.

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
    if not fewer:
        return {}
    if host.takes_fewer_steps:
        return {_words(count, "own step"): Denoising(num_steps=count) for count in fewer}
    if not host.takes_solvers:
        why = host.why_no_solver or f"{type(host.policy).__name__} has no place where it can be set"
        raise ScheduleError(f"steps: the policy's number of them cannot be changed: {why}")
    own = DRAWING[0] if injects_noise(host) else SOLVERS[0]
    ways = {f"{_words(count, 'own step')}, {own.name}": Denoising(own, _even(host, count)) for count in fewer}
    other = SOLVERS[1]
    return ways | {f"{_words(count, 'step')} of {other.name}": Denoising(other, _even(host, count)) for count in fewer}


def as_many(way: Denoising) -> int:
    """Own steps that compute about as much as a way: its sweeps of the blocks, rounded up; 0 if only a run tells."""
    return ceil(way.sweeps or way.num_evaluations or 0)


def as_fast(latency_s: float, own: tuple[int, float], fewer: tuple[int, float]) -> int:
    """How many own steps take as long as a way, on a line through two timed numbers of them; 1 at least.

    Args:
        latency_s: Of the way [s].
        own: The policy's number of steps, and its latency [s].
        fewer: A smaller number, and the latency of the policy with it.
    """
    (many, slow_s), (few, fast_s) = own, fewer
    per_step_s = (slow_s - fast_s) / (many - few)
    if per_step_s <= 0:  # the machine's noise is larger than what a step takes
        return many
    return min(many, max(1, floor(few + (AS_FAST * latency_s - fast_s) / per_step_s)))


def _words(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _even(host: Host, count: int) -> tuple[float, ...]:
    """Every so many of the policy's own timesteps, from the first one on."""
    grid = host.timesteps
    return tuple(grid[place * len(grid) // count] for place in range(count))
