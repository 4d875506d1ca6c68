"""The latency and action error of every scheduler x estimator x solver.

Schedules, fitted estimators and the rivals' timestep spacings are made from one set of observations. Action error is
measured on another set, from other worlds, against the dense policy on the same noise.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import bac
from bac.caching.schedulers.search import coordinate_search
from bac.tuning.batches import in_parts
from bac.tuning.timing import WARM_UP
from eval.compared.matching import caller
from eval.experiments.methods.catalogue import Catalogue, method, sweeps_of
from eval.measure.action_error import action_chunks, action_error, best_spacing, reference_of
from eval.measure.latency import measure
from eval.play.visit import visited
from eval.setup.batches import Batch, one_of
from eval.setup.cells import Cell, dense, running
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED

logger = logging.getLogger(__name__)

FEATURES_BATCH = 8
DENSE, FEWER = "dense", "fewer steps"


@dataclass(frozen=True)
class MethodRow:
    """One method, measured.

    Attributes:
        scheduler: The scheduler's name; with ``dense`` or ``fewer steps`` every block updates at every step.
        estimator: The estimator's name; ``none`` if nothing is reused.
        solver: One of `eval.setup.cells.SOLVERS`.
        num_steps: Denoising steps K.
        sweeps: Block updates / number of blocks.
        latency_p50_ms: Median latency of one action chunk at batch 1, one thread [ms].
        action_error: Root mean square error of executed actions, in normalised units (the data span 2).
    """

    scheduler: str
    estimator: str
    solver: str
    num_steps: int
    sweeps: float
    latency_p50_ms: float
    action_error: float


class Workbench:
    """Makes methods on one policy and measures their action errors.

    Args:
        loaded: Unwrapped policy with its processors.
        preset: A preset of ``configs/methods.yaml``.
        calibration: Observations that methods are made from, `[B, To, D]` each.
        observations: Other observations, on which action error is measured, `[B, To, D]` each.
    """

    def __init__(self, loaded: Any, preset: Any, calibration: Batch, observations: Batch) -> None:
        self.policy = loaded.policy
        self.preset = preset
        self.batches = {"calibration": calibration, "fidelity": observations}
        self._references: dict[tuple[Cell, str], torch.Tensor] = {}

    def methods(self) -> Iterator[Cell]:
        """Yield the dense policies, the rivals, then every pair of scheduler and estimator at every budget."""
        products = list(self.preset.products)
        for product in products:
            yield method(DENSE, dense(product.num_steps, product.solver))
        for num_steps in sorted({budget for product in products for budget in product.budgets}):
            for solver in self.preset.rivals:
                yield self._rival(solver, num_steps)
        for product in products:
            yield from self._pairs(product)

    def error(self, cell: Cell, purpose: str = "fidelity") -> float:
        """Action error of a method."""
        return action_error(self._chunks(cell, purpose), self._reference(cell, purpose))

    def _reference(self, cell: Cell, purpose: str) -> torch.Tensor:
        """Chunks of the dense policy on the cell's noise; for fewer DDPM steps, chunks of dense DDPM-100."""
        key = reference_of(cell) or dense(), purpose
        if key not in self._references:
            self._references[key] = self._chunks(*key)
        return self._references[key]

    def _chunks(self, cell: Cell, purpose: str) -> torch.Tensor:
        """Executed actions, `[num_draws, B, Ta, Da]`."""
        with running(self.policy, cell) as policy:
            return action_chunks(policy, self.batches[purpose], num_draws=self.preset.num_draws)

    def _rival(self, solver: str, num_steps: int) -> Cell:
        """The cell with fewer dense steps, in the solver's best timestep spacing."""
        reference = self._reference(dense(num_steps, solver), "calibration")
        spacing, _ = best_spacing(self.policy, solver, num_steps, self.batches["calibration"], reference)
        return method(FEWER, dense(num_steps, solver, spacing))

    def _pairs(self, product: Any) -> Iterator[Cell]:
        """Yield every pair of a solver at every budget; with `search`, also the searched steps of ``outcome``."""
        sampler = dense(product.num_steps, product.solver)
        batches = in_parts(self.batches["calibration"], FEATURES_BATCH)
        edge_starts = self.preset.edge_starts
        catalogue = Catalogue(partial(running, self.policy, sampler), batches, edge_starts=edge_starts)
        for budget in product.budgets:
            for scheduler, estimator in product.pairs:
                denoising = catalogue.denoising(scheduler, estimator, budget)
                yield method(scheduler, sampler, denoising)
                if self.preset.search and scheduler == "outcome":
                    yield self._searched(catalogue, sampler, denoising.schedule, estimator)

    def _searched(self, catalogue: Catalogue, sampler: Cell, schedule: bac.Schedule, estimator: str) -> Cell:
        """Move the steps of a schedule one at a time, as long as that lowers the action error."""

        def found(steps: tuple[int, ...]) -> Cell:
            return method("outcome, searched", sampler, catalogue.together(steps, estimator))

        def error(steps: tuple[int, ...]) -> float:
            return self.error(found(steps), "calibration")

        start = next(iter(schedule.update_steps.values()))
        steps, _ = coordinate_search(start, sampler.num_steps, error, max_evaluations=self.preset.search)
        return found(steps)


def latencies(
    loaded: Any, cells: Sequence[Cell], batch: Batch, *, replay: bool | bac.Replay, rounds: int
) -> list[float]:
    """Measure every method's median latency at batch 1, interleaved [ms]."""
    one = one_of(batch)
    calls = {cell.name: caller(loaded, cell, cell.denoising or bac.Denoising(), one, replay=replay) for cell in cells}
    measured = measure(calls, rounds=rounds, warmup=WARM_UP if replay else int(rounds > 2), progress=False)
    return [measured[cell.name].p50_ms for cell in cells]


def rows_of(
    loaded: Any, preset: Any, make_env: Callable[[], Any], *, replay: bool | bac.Replay = False
) -> list[MethodRow]:
    """Make, run and time every method of a preset.

    Args:
        loaded: Unwrapped policy with its processors.
        preset: A preset of ``configs/methods.yaml``.
        make_env: Makes a fresh world.
        replay: As for `bac.wrap`, when latencies are measured.
    """
    calibration = visited(loaded, make_env, CALIBRATION_SEED, preset.num_calibration)
    observations = visited(loaded, make_env, FIDELITY_SEED, preset.num_observations)
    bench = Workbench(loaded, preset, calibration, observations)
    cells: dict[str, Cell] = {}
    errors: dict[str, float] = {}
    for cell in bench.methods():
        if cell.name not in cells:
            cells[cell.name], errors[cell.name] = cell, bench.error(cell)
            logger.info("%-60s action error %.4f", cell.name, errors[cell.name])
    chosen = list(cells.values())
    times = latencies(loaded, chosen, observations, replay=replay, rounds=preset.rounds)
    return [_row(cell, latency, errors[cell.name]) for cell, latency in zip(chosen, times, strict=True)]


def _row(cell: Cell, latency_ms: float, error: float) -> MethodRow:
    estimator = (cell.denoising or bac.Denoising()).estimator_name
    sweeps = round(sweeps_of(cell), 3)
    return MethodRow(cell.family, estimator, cell.solver, cell.num_steps, sweeps, round(latency_ms, 3), error)
