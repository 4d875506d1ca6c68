"""The ways to be fast that are compared, as cells: own steps, fitted steps, deterministic steps, caches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import bac
from bac.caching.calibration import Calibration
from bac.caching.schedulers.matched import matched_schedule
from bac.solvers import DDPM, SOLVERS
from bac.tuning.bench import Bench
from bac.tuning.families import fewer_steps
from eval.setup.cells import Cell, adaptive, dense, holding, together

OWN = dense()  # the policy as it is configured and trained: DDPM-100
DETERMINISTIC = "deterministic steps"
ANCESTRAL = "fitted ancestral"
TUNED = "bac.tune's choice"
GROUPS = ("own steps", ANCESTRAL, DETERMINISTIC, "cache on own steps", TUNED)


def late(num_steps: int, grid: int) -> tuple[int, ...]:
    """Places on the grid that get denser late in the run, `[num_steps]`: timesteps at 99 (1 - k / K)^2 of a hundred."""
    return tuple(grid - 1 - round((grid - 1) * (1 - step / num_steps) ** 2) for step in range(num_steps))


def rows(bench: Bench, calibration: Calibration, *, steps: Sequence[int], updates: Sequence[int]) -> Iterator[Cell]:
    """Every way to be fast; the policy itself first.

    Args:
        bench: The policy with its observations; it fits the solvers.
        calibration: Calibration of the policy's own solver, for the caches.
        steps: Numbers of denoising steps of the ways that take fewer.
        updates: BAC's S, and the number of updates of caches that share their steps.
    """
    yield replace(OWN, family="own steps")
    for count in steps:
        places = late(count, bench.num_steps)
        timesteps = tuple(bench.grid[place] for place in places)
        yield replace(dense(count), family="own steps")
        yield _row(f"DDPM-{count} late", "own steps", fewer_steps(DDPM(), bench.grid, places))
        yield _row(
            f"fitted ancestral-{count}", "fitted ancestral", bac.Denoising(bench.ancestral(timesteps), timesteps)
        )
        yield _row(f"fitted multistep-{count}", DETERMINISTIC, bac.Denoising(bench.fitted(timesteps), timesteps))
        yield _row(f"DPM-Solver++-{count} late", DETERMINISTIC, fewer_steps(SOLVERS[1], bench.grid, places))
    yield replace(dense(10, "SDE-DPM-Solver++"), family="own steps")
    for count in (10, 100):
        yield replace(dense(count, "DDIM"), family=DETERMINISTIC)
    for count in updates:
        yield replace(adaptive(count, 5), family="cache on own steps")
        yield replace(together("unified", count), family="cache on own steps")
        schedule = replace(matched_schedule(calibration, count), estimator="taylor-1", fingerprint=None)
        yield _row(f"shared, taylor-1, {count}", "cache on own steps", bac.Denoising(schedule=schedule))


def chosen(file: Path) -> Cell:
    """The way of a ``bac.json`` that `bac.tune` wrote."""
    denoising = bac.load(file)
    return _row(f"tuned: {denoising.name}", TUNED, replace(denoising, measured=None))


def _row(name: str, group: str, denoising: bac.Denoising) -> Cell:
    return replace(holding(denoising, name, on=OWN), family=group)
