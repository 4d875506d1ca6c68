"""Scheduler x estimator x solver at the same share of block evaluations; and fewer steps, evenly spaced or placed."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

import bac
from bac.caching.estimators import AffineResidual, Estimator, FittedForecast, ScaleShift, named
from bac.recording import record_features
from bac.caching.schedulers.matched import matched_schedule
from bac.caching.schedulers.search import coordinate_search
from bac.caching.schedulers.unified import unified_schedule
from bac.caching.schedulers.uniform import uniform_schedule
from bac.solvers.fitting import END, Fitter, recorded
from eval.experiments.images.features import psnr
from eval.experiments.images.loop import DenoisingLoop
from eval.experiments.images.model import NUM_TRAIN_TIMESTEPS
from eval.experiments.images.sampling import Method, applied, batch_of, pictures

CALIBRATION_SEED = 100  # far from those of the pictures that are compared
FITTED = {fitted.name: fitted for fitted in (ScaleShift, AffineResidual, FittedForecast)}
NUM_BUBBLED = 5  # the paper's n in simulation
FITTED_STEPS = "fitted"
FEWER, PLACED, PLACED_SECOND = "fewer steps", "fewer steps, placed", "fewer steps, placed, second order"
_MOVES = (-4, -2, -1, 1, 2, 4)
_FAR_MOVES = (-64, -32, -16, -8, -4, 4, 8, 16, 32, 64)  # in timesteps of 1,000


class Product:
    """Schedulers and estimators on one solver.

    Args:
        loop: Untouched.
        solver: One of `eval.experiments.images.sampling.SOLVERS`.
        num_steps: Denoising steps K.
        count: Pictures that schedules and fits are made from.
        evaluations: Runs that a search may take.
    """

    def __init__(self, loop: DenoisingLoop, solver: str, num_steps: int, count: int, evaluations: int = 100) -> None:
        self.loop = loop
        self.dense = Method("dense", solver, num_steps)
        self._evaluations = evaluations
        self._batch = batch_of(count, CALIBRATION_SEED)
        with applied(loop, self.dense):
            self._reference = pictures(loop, self._batch)
            self.calibration = bac.calibrate(loop, [self._batch], progress=False)
        self._features: dict[str, Any] | None = None

    def methods(self, share: float, pairs: Sequence[Sequence[str]]) -> Iterator[Method]:
        """Every pair at a share of the block evaluations.

        Args:
            share: In (0, 1]; what a method takes is this or, where its updates cannot be chosen one by one, less.
            pairs: Names of scheduler and estimator.
        """
        for scheduler, estimator in pairs:
            if scheduler == FITTED_STEPS:
                yield self._fitted(round(share * self.dense.num_steps))
                continue
            yield self._method(scheduler, estimator, self._schedule(scheduler, estimator, share))

    def even(self, num_steps: int) -> Method:
        """Fewer dense steps, evenly spaced."""
        return Method(FEWER, self.dense.solver, num_steps)

    def fewer(self, num_steps: int) -> Iterator[Method]:
        """Fewer dense steps: evenly spaced, and placed by the search that places update steps.

        First order is DDIM itself; second order is DPM-Solver++, for DDIM a rival with a better solver.
        """
        yield self.even(num_steps)
        for name, order in ((PLACED, 1), (PLACED_SECOND, 2)):
            if order == 2 or self.dense.solver == "DDIM":
                yield self._placed(name, num_steps, order)

    def fit_psnr(self, method: Method) -> float:
        """To the uncached pictures, on those that methods are made from [dB]."""
        with applied(self.loop, method):
            return psnr(pictures(self.loop, self._batch), self._reference)

    def _method(self, scheduler: str, estimator: str, schedule: bac.Schedule) -> Method:
        stand_in = self._estimator(estimator, schedule)
        return Method(scheduler, self.dense.solver, self.dense.num_steps, schedule, stand_in)

    def _schedule(self, scheduler: str, estimator: str, share: float) -> bac.Schedule:
        made = self.calibration
        makers: dict[str, Callable[[int], bac.Schedule]] = {
            "uniform": lambda budget: uniform_schedule(made, budget),
            "unified": lambda budget: unified_schedule(made, budget),
            "acs": lambda budget: bac.adaptive_schedule(made, budget, num_bubbled=0),
            "bac": lambda budget: bac.adaptive_schedule(made, budget, num_bubbled=NUM_BUBBLED),
            "matched": lambda budget: matched_schedule(made, budget, order=0 if estimator == "hold" else 1),
            "searched": lambda budget: self._searched(estimator, budget),
        }
        if scheduler not in makers:
            raise ValueError(f"scheduler: must be one of {', '.join(makers)}, got {scheduler!r}")
        num_sweeps = share * made.num_steps
        budgets = range(max(round(num_sweeps), 1), 0, -1)
        schedules = (makers[scheduler](budget) for budget in budgets)
        # Bubbling adds updates, so it has to begin with fewer. One update of each block is the least there is.
        return next((made for made in schedules if made.num_sweeps <= num_sweeps + 0.5), makers[scheduler](1))

    def _searched(self, estimator: str, budget: int) -> bac.Schedule:
        """One list of steps for all blocks: the best start, then one step moved at a time while that helps."""

        def error(steps: tuple[int, ...]) -> float:
            return -self.fit_psnr(self._method("searched", estimator, self._together(steps)))

        made, last = self.calibration, self.dense.num_steps - 1
        schedules = uniform_schedule(made, budget), unified_schedule(made, budget), matched_schedule(made, budget)
        begun = {schedule.update_steps[made.block_names[0]] for schedule in schedules}
        begun.add(tuple(step * last // max(budget - 1, 1) for step in range(budget)))  # evenly, the last step too
        best = min(sorted(begun), key=error)
        found, _ = coordinate_search(best, last + 1, error, moves=_MOVES, max_evaluations=self._evaluations)
        return self._together(found)

    def _together(self, steps: tuple[int, ...]) -> bac.Schedule:
        made = self.calibration
        return bac.Schedule(made.num_steps, dict.fromkeys(made.block_names, steps), made.fingerprint)

    def _placed(self, name: str, num_steps: int, order: int) -> Method:
        last = NUM_TRAIN_TIMESTEPS - 1

        def method(places: tuple[int, ...]) -> Method:
            return Method(name, self.dense.solver, num_steps, timesteps=tuple(last - at for at in places), order=order)

        def error(places: tuple[int, ...]) -> float:
            return -self.fit_psnr(method(places))

        begun = {tuple(round(last * (step / num_steps) ** power) for step in range(num_steps)) for power in (1, 0.8)}
        best = min(sorted(begun), key=error)
        found, _ = coordinate_search(
            best, last + 1, error, moves=_FAR_MOVES, max_evaluations=self._evaluations, move_first=True
        )
        return method(found)

    def _fitted(self, num_steps: int) -> Method:
        """Few of the solver's own steps, placed by the search, with coefficients fitted to its dense runs."""
        grid, last = self._grid, self.dense.num_steps - 1

        def method(places: tuple[int, ...]) -> Method:
            timesteps = tuple(grid[place] for place in places)
            with applied(self.loop, self.dense):
                weights = self._fitter(timesteps).weights
            given = {"timesteps": timesteps, "weights": weights, "stands_for": self.dense.num_steps}
            return Method(FITTED_STEPS, self.dense.solver, num_steps, **given)

        def error(places: tuple[int, ...]) -> float:
            return -self.fit_psnr(method(places))

        spaced = np.linspace(0, 1, num_steps)
        begun = {tuple(int(at) for at in (last * (1 - (1 - spaced) ** power)).round()) for power in (1, 1.3, 1.7)}
        best = min(sorted(places for places in begun if len(set(places)) == num_steps), key=error)
        found, _ = coordinate_search(
            best, last + 1, error, moves=_MOVES, max_evaluations=self._evaluations, move_first=True
        )
        return method(found)

    @cached_property
    def _fitter(self) -> Fitter:
        def run() -> None:
            self.loop.predict_action_chunk(self._batch)

        with applied(self.loop, self.dense), recorded(self.loop.noise_scheduler) as states:
            run()
        return Fitter(self.loop, run, states)

    @property
    def _grid(self) -> list[int]:
        return sorted((timestep for timestep in self._fitter.states if timestep != END), reverse=True)

    def _estimator(self, name: str, schedule: bac.Schedule) -> Estimator:
        if name not in FITTED:
            return named(name)
        if self._features is None:
            with applied(self.loop, self.dense):
                self._features = record_features(self.loop, self._batch)
        return FITTED[name].fit(schedule, [self._features])
