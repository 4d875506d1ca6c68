"""The methods: scheduler x estimator x solver at one share of block evaluations, and fewer steps, even or placed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial

import numpy as np

import bac
from bac.adapters import find_host
from bac.caching.schedulers.matched import matched_schedule
from bac.caching.schedulers.search import coordinate_search
from bac.caching.schedulers.unified import unified_schedule
from bac.caching.schedulers.uniform import uniform_schedule
from bac.solvers import SOLVERS, Fitter, Solver, recorded
from bac.solvers.fitting import END
from eval.experiments.images.features import psnr
from eval.experiments.images.loop import DenoisingLoop
from eval.experiments.images.model import NUM_TRAIN_TIMESTEPS
from eval.experiments.images.sampling import applied, batch_of, pictures
from eval.experiments.methods.catalogue import Catalogue, method
from eval.setup.cells import Cell, dense

CALIBRATION_SEED = 100  # far from the seeds of the pictures that are compared
DENSE, SEARCHED, FITTED_STEPS = "dense", "searched", "fitted"
FEWER, PLACED, PLACED_SECOND = "fewer steps", "fewer steps, placed", "fewer steps, placed, second order"
_MOVES = (-4, -2, -1, 1, 2, 4)
_FAR_MOVES = (-64, -32, -16, -8, -4, 4, 8, 16, 32, 64)  # in timesteps of 1,000
Places = tuple[int, ...]


class ImageMethods:
    """Makes the methods of one solver.

    Args:
        loop: Unwrapped denoising loop.
        solver: One of `eval.experiments.images.sampling.NOISE_SCHEDULERS`.
        num_steps: Denoising steps K.
        count: Number of pictures that schedules and fits are made from.
        evaluations: Largest number of runs of a search.
    """

    def __init__(self, loop: DenoisingLoop, solver: str, num_steps: int, count: int, evaluations: int = 100) -> None:
        self.loop = loop
        self.dense = method(DENSE, dense(num_steps, solver))
        self._evaluations = evaluations
        self._batch = batch_of(count, CALIBRATION_SEED)
        self._catalogue = Catalogue(partial(applied, loop, self.dense), [self._batch])
        with applied(loop, self.dense):
            self._reference = pictures(loop, self._batch)

    def methods(self, share: float, pairs: Sequence[Sequence[str]]) -> Iterator[Cell]:
        """Yield the method of every pair at a share of the block evaluations.

        Args:
            share: Share of the block evaluations, in (0, 1]. A method stays about at it, or below it if its updates
                cannot be chosen one by one.
            pairs: Names of scheduler and estimator.
        """
        for scheduler, estimator in pairs:
            if scheduler == FITTED_STEPS:
                yield self._fitted(round(share * self.dense.num_steps))
            else:
                schedule = self._at_share(scheduler, estimator, share)
                yield method(scheduler, self.dense.sampler, self._catalogue.estimated(schedule, estimator))

    def even(self, num_steps: int) -> Cell:
        """The method with fewer dense steps, evenly spaced."""
        return method(FEWER, dense(num_steps, self.dense.solver))

    def fewer(self, num_steps: int) -> Iterator[Cell]:
        """Yield methods with fewer dense steps: evenly spaced, and placed by the same search as update steps.

        The first-order solver is DDIM. The second-order solver is DPM-Solver++; for DDIM it is a rival with a better
        solver.
        """
        yield self.even(num_steps)
        first, second = SOLVERS
        if self.dense.solver == "DDIM":
            yield self._placed(PLACED, num_steps, first)
        yield self._placed(PLACED_SECOND, num_steps, second)

    def fit_psnr(self, cell: Cell) -> float:
        """PSNR to the uncached pictures, on the noise that methods are made from [dB]."""
        with applied(self.loop, cell):
            return psnr(pictures(self.loop, self._batch), self._reference)

    def _at_share(self, scheduler: str, estimator: str, share: float) -> bac.Schedule:
        """The schedule with the most updates per block that stays within the share, plus half a sweep.

        Bubbling adds updates, so it has to start with fewer. One update per block is the minimum.
        """
        num_sweeps = share * self.dense.num_steps
        make = self._searched if scheduler == SEARCHED else partial(self._catalogue.schedule, scheduler)
        for budget in range(max(round(num_sweeps), 1), 1, -1):
            schedule = make(estimator, budget)
            if schedule.num_sweeps <= num_sweeps + 0.5:
                return schedule
        return make(estimator, 1)

    def _searched(self, estimator: str, budget: int) -> bac.Schedule:
        """Search one list of update steps for all blocks; see `_best`."""

        def cell(places: Places) -> Cell:
            return method(SEARCHED, self.dense.sampler, self._catalogue.together(places, estimator))

        made, last = self._catalogue.calibration, self.dense.num_steps - 1
        schedules = uniform_schedule(made, budget), unified_schedule(made, budget), matched_schedule(made, budget)
        begun = {schedule.update_steps[made.block_names[0]] for schedule in schedules}
        begun.add(tuple(step * last // max(budget - 1, 1) for step in range(budget)))  # evenly, the last step too
        return self._best(cell, begun, last + 1, _MOVES, move_first=False).denoising.schedule

    def _placed(self, name: str, num_steps: int, solver: Solver) -> Cell:
        """Place few steps of a solver at any of the timesteps that the model was trained on."""
        last = NUM_TRAIN_TIMESTEPS - 1

        def cell(places: Places) -> Cell:
            denoising = bac.Denoising(solver, tuple(last - at for at in places))
            return method(name, dense(num_steps, self.dense.solver), denoising)

        begun = {tuple(round(last * (step / num_steps) ** power) for step in range(num_steps)) for power in (1, 0.8)}
        return self._best(cell, begun, last + 1, _FAR_MOVES, move_first=True)

    def _fitted(self, num_steps: int) -> Cell:
        """Place few of the solver's own steps by search, with coefficients fitted to its dense runs."""
        grid = sorted((timestep for timestep in self._fitter.states if timestep != END), reverse=True)
        last = self.dense.num_steps - 1

        def cell(places: Places) -> Cell:
            timesteps = tuple(grid[place] for place in places)
            with applied(self.loop, self.dense):
                solver = self._fitter(timesteps)
            return method(FITTED_STEPS, self.dense.sampler, bac.Denoising(solver, timesteps))

        spaced = np.linspace(0, 1, num_steps)
        begun = {tuple(int(at) for at in (last * (1 - (1 - spaced) ** power)).round()) for power in (1, 1.3, 1.7)}
        distinct = [places for places in begun if len(set(places)) == num_steps]
        return self._best(cell, distinct, last + 1, _MOVES, move_first=True)

    def _best(
        self,
        cell: Callable[[Places], Cell],
        begun: Iterable[Places],
        num_places: int,
        moves: Sequence[int],
        *,
        move_first: bool,
    ) -> Cell:
        """Take the best start, then move one place at a time as long as the PSNR rises.

        Args:
            cell: Makes a method from places.
            begun: Starts of the search.
            num_places: Number of places to choose from.
            moves: Distances that a place is moved by, in places; negative is earlier.
            move_first: Whether the first place may move too.
        """

        def error(places: Places) -> float:
            return -self.fit_psnr(cell(places))

        best = min(sorted(begun), key=error)
        options = {"moves": moves, "max_evaluations": self._evaluations, "move_first": move_first}
        found, _ = coordinate_search(best, num_places, error, **options)
        return cell(found)

    @cached_property
    def _fitter(self) -> Fitter:
        """The fitter, which fits solvers to the dense run of the pictures that methods are made from."""

        def run() -> None:
            pictures(self.loop, self._batch)

        with applied(self.loop, self.dense):
            host = find_host(self.loop)
            with recorded(host) as states:
                run()
        return Fitter(host, run, states)
