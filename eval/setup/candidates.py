"""Between what `bac.tune` chooses and what a table has rows of."""

from dataclasses import replace

import bac
from bac.tuning import SOLVERS, Candidate, Multistep
from eval.setup.cells import Cell

_SOLVERS = {solver.name: solver for solver in SOLVERS}


def as_cell(candidate: Candidate, name: str) -> Cell:
    """The row of a candidate whose blocks all update together, or of one without a cache.

    Args:
        candidate: A solver of None stands for DDIM, which such policies are tuned on.
        name: Title of the row.

    Raises:
        ValueError: Its blocks update at different steps, which no row says.
    """
    solver = "DDIM" if candidate.solver is None else candidate.solver.name
    weights = candidate.solver.weights if isinstance(candidate.solver, Multistep) else None
    timesteps = candidate.timesteps or None
    cell = Cell(name, solver, candidate.num_steps, timesteps=timesteps, weights=weights)
    if candidate.schedule is None:
        return cell
    steps, *others = set(candidate.schedule.update_steps.values())
    if others:
        raise ValueError(f"{name}: its blocks update at different steps, a cell has one list of steps for all")
    return replace(cell, cache="placed", update_steps=steps, estimator=candidate.estimator)


def as_candidate(cell: Cell, schedule: bac.Schedule | None) -> Candidate:
    """What `bac tune` would have written for a row with timesteps of its own.

    Raises:
        ValueError: The solver is not one that `bac.tune` puts on, or its timesteps are its own.
    """
    if cell.timesteps is None or not (cell.weights or cell.solver in _SOLVERS):
        raise ValueError(
            f"{cell.name}: {cell.solver_name} is not a way to denoise that bac.json holds. It has to have timesteps, "
            f"and its solver to be {Multistep.name} or one of {', '.join(_SOLVERS)}"
        )
    solver = Multistep(cell.weights) if cell.weights else _SOLVERS[cell.solver]
    method = "fewer steps" if schedule is None else "together"
    return Candidate(method, cell.num_steps, solver, cell.timesteps, schedule)
