"""Scheduler x estimator x solver at the same share of block evaluations; and fewer steps at the same latency."""

from collections.abc import Callable, Iterator
from typing import Any

import bac
from bac.estimators import AffineResidual, Estimator, FittedForecast, ScaleShift, named
from bac.recording import record_features
from bac.schedulers.matched import matched_schedule
from bac.schedulers.unified import unified_schedule
from bac.schedulers.uniform import uniform_schedule
from eval.images.sampling import Method, applied, arguments

CALIBRATION_SEED = 100  # far from those of the pictures that are compared
FITTED = {fitted.name: fitted for fitted in (ScaleShift, AffineResidual, FittedForecast)}
NUM_BUBBLED = 5  # the paper's n in simulation


class Product:
    """Schedulers and estimators on one solver.

    Args:
        pipe: Untouched.
        solver: One of `eval.images.sampling.SOLVERS`.
        num_steps: Denoising steps K.
        count: Pictures that schedules and fits are made from.
    """

    def __init__(self, pipe: Any, solver: str, num_steps: int, count: int) -> None:
        self.pipe = pipe
        self.dense = Method("dense", solver, num_steps)
        self._count = count
        with applied(pipe, self.dense):
            self.calibration = bac.calibrate(pipe, [self._batch()], progress=False)
        self._features: dict[str, Any] | None = None

    def methods(self, share: float, pairs: list[tuple[str, str]]) -> Iterator[Method]:
        """Every pair at a share of the block evaluations.

        Args:
            share: In (0, 1]; what a method takes is this or, where its updates cannot be chosen one by one, less.
            pairs: Names of scheduler and estimator.
        """
        for scheduler, estimator in pairs:
            schedule = self._schedule(scheduler, estimator, share)
            yield Method(
                scheduler, self.dense.solver, self.dense.num_steps, schedule, self._estimator(estimator, schedule)
            )

    def _schedule(self, scheduler: str, estimator: str, share: float) -> bac.Schedule:
        made = self.calibration
        makers: dict[str, Callable[[int], bac.Schedule]] = {
            "uniform": lambda budget: uniform_schedule(made, budget),
            "unified": lambda budget: unified_schedule(made, budget),
            "acs": lambda budget: bac.adaptive_schedule(made, budget, num_bubbled=0),
            "bac": lambda budget: bac.adaptive_schedule(made, budget, num_bubbled=NUM_BUBBLED),
            "matched": lambda budget: matched_schedule(made, budget, order=0 if estimator == "hold" else 1),
        }
        if scheduler not in makers:
            raise ValueError(f"scheduler: must be one of {', '.join(makers)}, got {scheduler!r}")
        num_sweeps = share * made.num_steps
        budgets = range(max(round(num_sweeps), 1), 0, -1)
        schedules = (makers[scheduler](budget) for budget in budgets)
        # Bubbling adds updates, so it has to begin with fewer. One update of each block is the least there is.
        return next((made for made in schedules if made.num_sweeps <= num_sweeps + 0.5), makers[scheduler](1))

    def _estimator(self, name: str, schedule: bac.Schedule) -> Estimator:
        if name not in FITTED:
            return named(name)
        if self._features is None:
            with applied(self.pipe, self.dense):
                self._features = record_features(self.pipe, self._batch())
        return FITTED[name].fit(schedule, [self._features])

    def _batch(self) -> dict[str, Any]:
        return arguments(self._count, self.dense.num_steps, CALIBRATION_SEED)
