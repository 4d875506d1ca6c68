"""The ways to be faster that are compared on a flow-matching policy, each made from the policy's own observations."""

from collections.abc import Callable, Iterator
from typing import Any

import bac
from bac.adapters import find_host
from bac.solvers.flow_fitting import FlowFitter
from eval.compared.many_tasks import predict
from eval.experiments.flow.rows import EVEN, FITTED, FITTED_TO_OWN, fitted, holding_on_own, own
from eval.setup.batches import Batch
from eval.setup.cells import Cell, running
from eval.setup.settings import CALIBRATION_SEED

REUSE = "BAC on its own steps"
GROUPS = (EVEN, FITTED, FITTED_TO_OWN, REUSE)


def ways(policy: Any, options: Any, observations: Callable[[], Batch]) -> Iterator[Cell]:
    """Every way; the policy itself first.

    Args:
        policy: Unwrapped, with a ``noise`` that it takes.
        options: `vla` of ``configs/eval.yaml``.
        observations: Gives the preprocessed observations to fit on; called only if something is fitted.
    """
    yield from (own(count) for count in options.own)
    if not (options.fitted or options.fitted_to_own or options.bac):
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
