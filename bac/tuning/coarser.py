"""The choice in a coarser precision: faster where float32 parts take most of the time, and another rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bac.precision import AS_LOADED, check_precision, check_precision_on
from bac.tuning.bench import Bench
from bac.tuning.budget import Budget, BudgetError
from bac.tuning.trial import Trial


def check_precisions(precisions: Sequence[str], bench: Bench, budget: Budget) -> None:
    """Check the precisions to try, before minutes of work.

    Raises:
        BudgetError: The budget is no action error. Under a latency the nearest way wins, which a coarser one never is.
        ScheduleError: A precision is unknown, or changes nothing on the policy.
    """
    for precision in precisions:
        check_precision(precision)
        check_precision_on(bench.host.weights or bench.host.denoiser, precision)
    if set(precisions) - {AS_LOADED} and budget.action_error is None:
        raise BudgetError(
            "precisions: a coarser precision is chosen within an action error; give max_action_error= instead of "
            f"{budget.asked}"
        )


def in_coarser(bench: Bench, chosen: Trial, precisions: Sequence[str], rounds: int) -> list[Trial]:
    """The choice in each of the precisions, timed in turns with itself, and run on all observations.

    Args:
        bench: The bench.
        chosen: The choice.
        precisions: Names of the precisions; that of the choice is left out.
        rounds: Chunks to time of each.

    Returns:
        The choice with the latency of the same turns, then the others.
    """
    others = [replace(chosen.denoising, precision=name) for name in precisions if name != chosen.denoising.precision]
    ways = [chosen.denoising, *others]
    found = []
    for way, latency in zip(ways, bench.latencies(ways, rounds), strict=True):
        made = replace(chosen, denoising=way, fit_error=bench.error(way), typical_error=bench.typical_error(way))
        made = replace(made, error=bench.error(way, "held out"), other_error=bench.other_error(way))
        found.append(replace(made, p50_s=latency.p50_s, p95_s=latency.p95_s))
    return found
