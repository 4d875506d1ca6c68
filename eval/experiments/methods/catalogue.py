"""The schedules and estimators that a preset names, made from one calibration.

A method is a cell (`eval.setup.cells`). Its family says how its steps were chosen; its Denoising says what is run.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import bac
from bac.caching.estimators import Estimator
from bac.caching.schedulers.matched import matched_schedule
from bac.caching.schedulers.unified import unified_schedule
from bac.caching.schedulers.uniform import uniform_schedule
from bac.published import estimator_named, fitted_class
from bac.published.global_budget import global_budget_schedule
from bac.published.outcome import edge_grid, fill, outcome_schedule
from bac.published.perturbation import edge_costs
from bac.recording import record_features
from eval.setup.cells import Cell

NUM_BUBBLED = 5  # the paper's n in simulation
SCHEDULERS = (
    "uniform", "unified", "acs", "bac", "bac_all", "matched", "global_budget", "outcome", "outcome_worst",
)  # fmt: skip


def method(family: str, sampler: Cell, denoising: bac.Denoising | None = None) -> Cell:
    """The cell of a method, named by family, estimator, solver and sweeps.

    Args:
        family: The way in which its steps were chosen.
        sampler: Dense cell that configures the policy.
        denoising: The Denoising to put on; None for none.
    """
    cell = replace(sampler, denoising=denoising, family=family)
    words = family, (denoising or bac.Denoising()).estimator_name, sampler.solver_name
    return replace(cell, name=f"{', '.join(words)}, {sweeps_of(cell):.2f} sweeps")


def sweeps_of(cell: Cell) -> float:
    """Sweeps of a method: block updates / number of blocks."""
    sweeps = None if cell.denoising is None else cell.denoising.sweeps
    return float(cell.num_steps if sweeps is None else sweeps)


class Catalogue:
    """Schedules and estimators of one policy on one solver.

    Args:
        running: Makes a context within which the unwrapped policy runs dense.
        batches: Observation batches for calibration, fits and edges.
        edge_starts: Number of start steps of the edges that the scheduler `outcome` measures; 0 leaves it out.
    """

    def __init__(
        self, running: Callable[[], AbstractContextManager[Any]], batches: Sequence[Any], *, edge_starts: int = 0
    ) -> None:
        self._running, self._batches, self._edge_starts = running, batches, edge_starts
        self._costs: dict[str, Any] = {}
        with running() as policy:
            self.calibration = bac.calibrate(policy, batches, progress=False)

    def denoising(self, scheduler: str, estimator: str, budget: int) -> bac.Denoising:
        """The Denoising of a scheduler and an estimator at `budget` updates per block."""
        return self.estimated(self.schedule(scheduler, estimator, budget), estimator)

    def together(self, steps: tuple[int, ...], estimator: str) -> bac.Denoising:
        """The Denoising that updates all blocks at the same steps."""
        made = self.calibration
        updates = dict.fromkeys(made.block_names, steps)
        return self.estimated(bac.Schedule(made.num_steps, updates, made.fingerprint), estimator)

    def estimated(self, schedule: bac.Schedule, estimator: str) -> bac.Denoising:
        """The Denoising of a schedule and a named estimator, which is fitted to the schedule if it has parameters."""
        return bac.Denoising(schedule=schedule, estimator=self._estimator(estimator, schedule))

    def schedule(self, scheduler: str, estimator: str, budget: int) -> bac.Schedule:
        """The schedule of a scheduler.

        Args:
            scheduler: One of `SCHEDULERS`.
            estimator: Name of the estimator that gives a reused block's value.
            budget: Updates per block, before bubbling.

        Raises:
            ValueError: There is no such scheduler.
        """
        made, num_blocks = self.calibration, len(self.calibration.blocks)
        match scheduler:
            case "uniform":
                return uniform_schedule(made, budget)
            case "unified":
                return unified_schedule(made, budget)
            case "acs":
                return bac.adaptive_schedule(made, budget, num_bubbled=0)
            case "bac":
                return bac.adaptive_schedule(made, budget, num_bubbled=min(NUM_BUBBLED, num_blocks))
            case "bac_all":
                return bac.adaptive_schedule(made, budget, num_bubbled=num_blocks)
            case "matched":
                return matched_schedule(made, budget, order=0 if estimator == "hold" else 1)
            case "global_budget":
                return global_budget_schedule(made, budget)
            case "outcome":
                return outcome_schedule(made, self._cost(estimator), budget, estimator=estimator)
            case "outcome_worst":
                cost = self._cost(estimator)
                return outcome_schedule(made, cost, budget, estimator=estimator, objective="worst")
        raise ValueError(f"scheduler: must be one of {', '.join(SCHEDULERS)}, got {scheduler!r}")

    def _estimator(self, name: str, schedule: bac.Schedule) -> Estimator:
        fitted = fitted_class(name)
        if fitted is None:
            return estimator_named(name)
        with self._running() as policy:
            features = (record_features(policy, batch, seed=index) for index, batch in enumerate(self._batches))
            return fitted.fit(schedule, features)

    def _cost(self, estimator: str) -> Any:
        """Change of the actions that reuse over every edge makes, `[K, K + 1]`."""
        if estimator not in self._costs:
            num_steps = self.calibration.num_steps
            edges = edge_grid(num_steps, self._edge_starts)
            with self._running() as policy:
                costs = edge_costs(policy, self._batches[0], edges, estimator=estimator_named(estimator))
            self._costs[estimator] = fill(edges, costs, num_steps)
        return self._costs[estimator]
