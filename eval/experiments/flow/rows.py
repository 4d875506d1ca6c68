"""The ways to take fewer steps that are compared, as cells, for one flow-matching policy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import bac
from bac.solvers import AdamsBashforth
from bac.solvers.flow_fitting import FlowFit, FlowFitter
from eval.setup.cells import FLOW, Cell, dense, holding

EVEN, TUNED, SECOND = "own even steps", "own steps, tuned times", "second order, tuned times"
FITTED, FITTED_TO_OWN = "fitted to the flow", "fitted to its own ten steps"
PRESET = "preset, fitted on another policy"
GROUPS = (EVEN, TUNED, SECOND, FITTED, FITTED_TO_OWN, PRESET)
EULER, AB2 = AdamsBashforth(1), AdamsBashforth(2)
Make = Callable[[Sequence[float]], FlowFit]


def own(num_steps: int = 10) -> Cell:
    """The policy's own solver, Euler's, at even times."""
    return replace(dense(num_steps, FLOW), name=f"Euler-{num_steps}", family=EVEN)


def rows(to_flow: FlowFitter, to_own: FlowFitter, steps: Sequence[int]) -> Iterator[Cell]:
    """Every way; the policy itself first.

    Args:
        to_flow: Fits to a fine run of the flow.
        to_own: Fits to the policy's own ten steps.
        steps: Numbers of steps.
    """
    yield own()
    for count in steps:
        yield own(count)
        yield fitted(f"Euler-{count} tuned", TUNED, to_flow, partial(to_flow.at, EULER), count)
        yield fitted(f"AB2-{count} tuned", SECOND, to_flow, partial(to_flow.at, AB2), count)
        yield fitted(f"fitted-{count}", FITTED, to_flow, to_flow.fit, count)
        yield fitted(f"fitted-{count} to own", FITTED_TO_OWN, to_own, to_own.fit, count)
    yield own(50)


def fitted(name: str, group: str, fitter: FlowFitter, make: Make, num_steps: int) -> Cell:
    """The best way of one kind that a search finds."""
    found = fitter.search(make, num_steps)
    return holding_on_own(bac.Denoising(found.solver, found.times), name, group)


def holding_on_own(denoising: bac.Denoising, name: str, group: str) -> Cell:
    """The cell that puts a Denoising on the policy itself."""
    return replace(holding(denoising, name, on=own()), family=group)
