"""Places the steps of ways to denoise: starting places, and coordinate search from the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.caching.schedulers.adaptive import adaptive_schedule
from bac.caching.schedulers.matched import matched_schedule
from bac.caching.schedulers.search import coordinate_search
from bac.caching.schedulers.unified import unified_schedule
from bac.denoising import Denoising
from bac.solvers import DRAWING, SOLVERS, Ancestral, Solver
from bac.tuning.bench import Bench

Make = Callable[[Sequence[int]], Denoising]
Places = tuple[int, ...]
FEWER = "fewer steps"
BUBBLED = 5  # the paper's n in simulation
POWERS, BEGINS = (1.7, 2.3, 3.0), (0.03, 0.15)  # exponents and starts (shares of the run) of late-dense spacings
ESTIMATORS = ("hold", "taylor-1")
STRIDES = {1: "", 5: ", every 5th step"}  # fewer reused steps, because even a fully reused step costs time


@dataclass(frozen=True)
class Family:
    """Ways to denoise that differ only in the places of their steps.

    Attributes:
        name: E.g. ``fewer steps, DPM-Solver++``; ``together, taylor-1, every 5th step``.
        make: Makes a way to denoise from places on the grid of the policy's own timesteps.
        free: A run may begin later than at the first timestep of the grid.
        like: Makes one of equal cost, if `make` itself runs the policy.
    """

    name: str
    make: Make
    free: bool
    like: Make | None = None

    def of_cost(self, count: int) -> Denoising:
        """A way to denoise with so many sweeps, only for predicting its cost."""
        return (self.like or self.make)(range(count))


def families(bench: Bench) -> tuple[Family, ...]:
    """All families for a policy.

    If the policy takes no solvers: reuse on its own steps. If it draws noise: fewer steps of solvers that draw and of a
    fitted one, fewer deterministic steps, and reuse on its own steps. Otherwise: fewer deterministic steps, and reuse
    on all or every fifth of the first solver's steps.
    """
    own = tuple(
        Family(f"together, {estimator}", partial(_on_own_places, bench, estimator), free=False)
        for estimator in ESTIMATORS
    )
    if not bench.solvers:
        return own
    if bench.draws_noise:
        return (*map(partial(_fewer, bench), DRAWING), ancestral_family(bench), *_deterministic(bench), *own)
    cached = (
        Family(f"together, {estimator}{words}", partial(_together, bench, estimator, stride), free=True)
        for estimator in ESTIMATORS
        for stride, words in STRIDES.items()
    )
    return (*_deterministic(bench), *cached)


def _deterministic(bench: Bench) -> tuple[Family, ...]:
    return (*map(partial(_fewer, bench), bench.solvers), fitted_family(bench))


def _fewer(bench: Bench, solver: Solver) -> Family:
    return Family(f"{FEWER}, {solver.name}", partial(fewer_steps, solver, bench.grid), free=True)


def ancestral_family(bench: Bench) -> Family:
    """Fewer steps that draw noise, with coefficients and noise that are fitted for the given timesteps."""

    def make(places: Sequence[int]) -> Denoising:
        solver = bench.ancestral(tuple(bench.grid[place] for place in places))
        return fewer_steps(solver, bench.grid, places)

    return Family(f"{FEWER}, {Ancestral.name}", make, free=True, like=partial(fewer_steps, DRAWING[0], bench.grid))


def fitted_family(bench: Bench) -> Family:
    """Fewer steps with coefficients that are fitted for the given timesteps."""

    def make(places: Sequence[int]) -> Denoising:
        solver = bench.fitted(tuple(bench.grid[place] for place in places))
        return fewer_steps(solver, bench.grid, places)

    like = partial(fewer_steps, SOLVERS[0], bench.grid)
    return Family(f"{FEWER}, fitted multistep", make, free=True, like=like)


def starts(calibration: Calibration, count: int) -> set[Places]:
    """Starting places for a search.

    They are ACS on the mean similarity, its match for a line (`matched_schedule`), even spacings (from the first
    timestep, to the last, or between), and spacings that get denser late in the run by a power law.
    """
    num_steps, first = calibration.num_steps, calibration.block_names[0]
    found = {unified_schedule(calibration, count).update_steps[first]}
    if calibration.gram is not None:
        found.add(matched_schedule(calibration, count).update_steps[first])
    even = np.linspace(0, 1, count + 1)
    late = np.linspace(0.06, 0.98, count)
    denser = (1 - (1 - np.linspace(begin, 0.93, count)) ** power for power in POWERS for begin in BEGINS)
    for spacing in (even[:-1], even[1:], late, *denser):
        places = tuple(int(place) for place in (spacing * (num_steps - 1)).round())
        found |= {places} if len(set(places)) == count else set()  # rounding may merge two places
    return found


def best_start(bench: Bench, family: Family, calibration: Calibration, count: int) -> Places:
    """The starting place with the least typical error on the fitting observations."""
    allowed = (places for places in sorted(starts(calibration, count)) if family.free or places[0] == 0)
    return min(allowed, key=lambda places: bench.typical_error(family.make(places)))


def searched(bench: Bench, family: Family, places: Places, evaluations: int) -> Places:
    """Move one place at a time while that lowers the typical error on the fitting observations."""
    found, _ = coordinate_search(
        places,
        bench.num_steps,
        lambda steps: bench.typical_error(family.make(steps)),
        max_evaluations=evaluations,
        move_first=family.free,
    )
    return found


def fixed(bench: Bench, calibration: Calibration, count: int) -> list[tuple[str, Denoising]]:
    """Ways to denoise without a search, on the policy's own solver.

    They are its own steps with ACS and BUA, or with one list of update steps for all blocks; and, if the policy takes
    no other solver, fewer of its steps.
    """
    bubbled = min(BUBBLED, len(bench.names))
    schedules = {
        "adaptive + bubbling": adaptive_schedule(calibration, count, num_bubbled=bubbled),
        "unified": unified_schedule(calibration, count),
    }
    if calibration.gram is not None:
        schedules["matched"] = matched_schedule(calibration, count)
    fewer = [] if bench.solvers or not bench.takes_fewer_steps else [(FEWER, Denoising(num_steps=count))]
    return [*fewer, *((name, _on_own_steps(bench, schedule)) for name, schedule in schedules.items())]


def fewer_steps(solver: Solver, grid: Sequence[int], places: Sequence[int]) -> Denoising:
    """A solver at some of the timesteps of a grid, dense."""
    return Denoising(solver, tuple(grid[place] for place in places))


def together(
    solver: Solver, grid: Sequence[int], places: Sequence[int], names: Sequence[str], estimator: str, stride: int = 1
) -> Denoising:
    """A solver at the places and at every `stride`-th timestep after the first; blocks update at the places only."""
    steps = sorted({*places, *range(places[0], len(grid), stride)})
    updates = dict.fromkeys(names, tuple(map(steps.index, places)))
    schedule = Schedule(len(steps), updates, estimator=estimator)
    return Denoising(solver, tuple(grid[step] for step in steps), schedule=schedule)


def _together(bench: Bench, estimator: str, stride: int, places: Sequence[int]) -> Denoising:
    return together(SOLVERS[0], bench.grid, places, bench.names, estimator, stride)


def _on_own_places(bench: Bench, estimator: str, places: Sequence[int]) -> Denoising:
    """The policy's own solver and steps; all blocks update at the places only."""
    updates = dict.fromkeys(bench.names, tuple(places))
    return _on_own_steps(bench, Schedule(bench.num_steps, updates, estimator=estimator))


def _on_own_steps(bench: Bench, schedule: Schedule) -> Denoising:
    return Denoising(num_steps=bench.num_steps, schedule=replace(schedule, fingerprint=None))
