"""Solvers by the names that files carry."""

from __future__ import annotations

from collections.abc import Sequence

from bac.errors import ScheduleError
from bac.solvers.adams_bashforth import FLOW_SOLVERS
from bac.solvers.diffusers import SOLVERS
from bac.solvers.multistep import Multistep
from bac.solvers.solver import Solver

_BY_NAME: dict[str, Solver] = {solver.name: solver for solver in (*SOLVERS, *FLOW_SOLVERS)}
_NAMES = [*(solver.name for solver in SOLVERS), Multistep.name, *(solver.name for solver in FLOW_SOLVERS)]


def solver_named(name: str, coefficients: Sequence[Sequence[float]] | None = None) -> Solver:
    """The solver with this name.

    Args:
        name: ``DPM-Solver++``, ``DPM-Solver++ 1``, ``Euler``, ``Adams-Bashforth`` or ``fitted multistep``.
        coefficients: Coefficients of the fitted multistep solver, `[K, 5]`; see `bac.solvers.Multistep`.

    Raises:
        ScheduleError: There is no such solver, or its coefficients are missing.
    """
    if name == Multistep.name:
        if coefficients is None:
            raise ScheduleError(f"solver: {name} needs its coefficients; bac.tune(policy, batches, ...) fits them")
        return Multistep(tuple(tuple(map(float, row)) for row in coefficients))
    if name not in _BY_NAME:
        raise ScheduleError(f"solver: must be one of {', '.join(_NAMES)}, got {name!r}")
    return _BY_NAME[name]
