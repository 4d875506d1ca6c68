"""Solvers by the names that files carry."""

from __future__ import annotations

from collections.abc import Sequence

from bac.errors import ScheduleError
from bac.solvers.adams_bashforth import FLOW_SOLVERS
from bac.solvers.ancestral import Ancestral
from bac.solvers.diffusers import DRAWING, SOLVERS
from bac.solvers.multistep import Multistep
from bac.solvers.solver import Solver

_BY_NAME: dict[str, Solver] = {solver.name: solver for solver in (*SOLVERS, *DRAWING, *FLOW_SOLVERS)}
Rows = Sequence[Sequence[float]]


def solver_named(name: str, coefficients: Rows | None = None, scales: Sequence[float] | None = None) -> Solver:
    """The solver with this name.

    Args:
        name: ``DPM-Solver++``, ``DPM-Solver++ 1``, ``DDPM``, ``SDE-DPM-Solver++``, ``Euler``, ``Adams-Bashforth``,
            ``fitted multistep`` or ``fitted ancestral``.
        coefficients: Coefficients of a fitted solver, `[K, 5]`; see `bac.solvers.Multistep`.
        scales: Noise scales of the fitted ancestral solver, `[K]`; see `bac.solvers.Ancestral`.

    Raises:
        ScheduleError: There is no such solver, or its coefficients or scales are missing.
    """
    if name not in (Multistep.name, Ancestral.name):
        if name not in _BY_NAME:
            known = ", ".join([*_BY_NAME, Multistep.name, Ancestral.name])
            raise ScheduleError(f"solver: must be one of {known}, got {name!r}")
        return _BY_NAME[name]
    if coefficients is None or (name == Ancestral.name and scales is None):
        raise ScheduleError(f"solver: {name} needs its coefficients; bac.tune(policy, batches, ...) fits them")
    if name == Multistep.name:
        return Multistep(_floats(coefficients))
    return Ancestral(_floats(coefficients), tuple(map(float, scales or ())))


def _floats(rows: Rows) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in rows)
