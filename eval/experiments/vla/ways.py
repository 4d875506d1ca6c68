"""The ways to be faster that are compared on a flow-matching policy, each made from the policy's own observations."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import bac
from bac.adapters import find_host
from bac.solvers.flow_fitting import FlowFitter
from eval.compared.many_tasks import predict
from eval.experiments.flow.rows import EVEN, FITTED, FITTED_TO_OWN, fitted, holding_on_own, own
from eval.experiments.methods.catalogue import Catalogue
from eval.experiments.vla.measures import errors
from eval.setup.batches import Batch
from eval.setup.cells import Cell, running
from eval.setup.settings import CALIBRATION_SEED

REUSE, CACHES, CHOSEN = "BAC on its own steps", "best of all caches", "from a file (bac.tune)"
GROUPS = (EVEN, FITTED, FITTED_TO_OWN, REUSE, CACHES, CHOSEN)
SCHEDULERS = ("uniform", "unified", "acs", "bac_all", "matched", "global_budget")
ESTIMATORS = (
    "hold", "taylor-1", "newton-2", "adams_bashforth-1", "rescale", "scale_shift", "affine_residual", "fitted_forecast",
)  # fmt: skip


def ways(policy: Any, options: Any, observations: Callable[[], Batch]) -> Iterator[Cell]:
    """Every way; the policy itself first.

    Args:
        policy: Unwrapped, with a ``noise`` that it takes.
        options: `vla` of ``configs/eval.yaml``.
        observations: Gives the preprocessed observations to fit on; called only if something is fitted.
    """
    yield from (own(count) for count in options.own)
    for file in options.files:
        denoising = replace(bac.load(file), measured=None)
        yield holding_on_own(denoising, f"tuned: {denoising.name}", CHOSEN)
    if not (options.fitted or options.fitted_to_own or options.bac or options.caches):
        return
    batch = observations()
    for group, counts in ((FITTED, options.fitted), (FITTED_TO_OWN, options.fitted_to_own)):
        if counts:
            to_own = group == FITTED_TO_OWN
            with running(policy, own()):
                fitter = FlowFitter(find_host(policy), lambda: predict(policy, batch), own=to_own)
                for count in counts:
                    yield fitted(f"fitted-{count}" + " to own" * to_own, group, fitter, fitter.fit, count)
    if options.bac:
        with running(policy, own()):
            calibration = bac.calibrate(policy, [batch], seed=CALIBRATION_SEED, progress=False)
        for updates, bubbled in options.bac:
            schedule = bac.adaptive_schedule(calibration, updates, num_bubbled=bubbled)
            yield holding_on_own(bac.Denoising(schedule=schedule), f"BAC S={updates} n={bubbled}", REUSE)
    if options.caches:
        catalogue = Catalogue(partial(running, policy, own()), [batch])
        best = [best_cache(policy, catalogue, batch, sweeps) for sweeps in options.caches]
        yield from {cell.name: cell for cell in best}.values()  # two budgets may have the same best one


def best_cache(policy: Any, catalogue: Catalogue, batch: Batch, sweeps: float) -> Cell:
    """The cache that stays closest to the policy's own steps: each scheduler here with each estimator here.

    Args:
        policy: Unwrapped.
        catalogue: Makes the schedules and the estimators.
        batch: Observations to measure the action error on.
        sweeps: Most sweeps of a run (block updates / number of blocks).

    Raises:
        ValueError: No schedule makes so few.
    """
    made = []
    for scheduler, estimator in product(SCHEDULERS, ESTIMATORS):
        schedules = (catalogue.schedule(scheduler, estimator, updates) for updates in range(int(sweeps), 0, -1))
        schedule = next((found for found in schedules if bac.Denoising(schedule=found).sweeps <= sweeps), None)
        if schedule is not None:
            denoising = catalogue.estimated(schedule, estimator)
            name = f"{scheduler}, {denoising.estimator_name}, {denoising.sweeps:.3g} sweeps"
            made.append(holding_on_own(denoising, name, CACHES))
    if not made:
        raise ValueError(f"vla.caches: no schedule makes {sweeps} sweeps or fewer; ask for 1 or more")
    _, *typical = (error for _, error in errors(policy, [own(), *made], batch).values())
    return min(zip(typical, made, strict=True), key=lambda pair: pair[0])[1]
