"""The parts of a ``bac.json`` in plain JSON types, and back: solver, schedule, estimator."""

from __future__ import annotations

from typing import Any

from bac.caching.estimators import Estimator
from bac.caching.estimators.fitted import Fitted
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError
from bac.files import as_it_is, as_number, part
from bac.fingerprint import Fingerprint
from bac.measured import Measured
from bac.published.naming import fitted_class
from bac.solvers import DRAWING, FLOW_SOLVERS, SOLVERS, Ancestral, Multistep, Solver, solver_named


def solver_document(solver: Solver | None) -> dict[str, Any] | None:
    """The solver's name, with coefficients and noise scales if it has them.

    Raises:
        ScheduleError: No file holds such a solver.
    """
    if solver is None:
        return None
    if not isinstance(solver, Multistep) and solver not in (*SOLVERS, *DRAWING, *FLOW_SOLVERS):
        raise ScheduleError(f"solver: no file holds {solver.name}; give it again: bac.Denoising(solver, timesteps)")
    fitted = {"coefficients": [list(row) for row in solver.coefficients]} if isinstance(solver, Multistep) else {}
    drawn = {"scales": list(solver.scales)} if isinstance(solver, Ancestral) else {}
    return {"name": solver.name, **fitted, **drawn}


def schedule_document(schedule: Schedule | None) -> dict[str, Any] | None:
    """Number of steps and update steps of every block; the estimator has a place of its own."""
    if schedule is None:
        return None
    return {"num_steps": schedule.num_steps, "update_steps": {k: list(v) for k, v in schedule.update_steps.items()}}


def read_fingerprint(document: Any) -> Fingerprint | None:
    """The fingerprint; None if the file has none."""
    return None if document is None else Fingerprint.from_dict(document)


def read_measured(document: Any) -> Measured | None:
    """What was measured; None if the file does not say."""
    return None if document is None else Measured.from_dict(document)


def read_solver(document: Any) -> Solver | None:
    """Inverse of `solver_document`."""
    if document is None:
        return None
    name = part(document, "name", as_it_is)
    fitted = {name: part(document, name, read) for name, read in _FITTED.items() if name in document}
    return solver_named(name, **fitted)


def _row(given: Any) -> Any:
    """Numbers; null where the solver has none."""
    return None if given is None else [as_number(value) for value in given]


def _rows(given: Any) -> Any:
    """Coefficients row by row; null where the solver has none."""
    return None if given is None else [_row(row) for row in given]


_FITTED = {"coefficients": _rows, "scales": _row}


def read_schedule(document: Any, fingerprint: Fingerprint | None, estimator: str) -> Schedule | None:
    """Inverse of `schedule_document`."""
    if document is None:
        return None
    steps = part(document, "update_steps", lambda given: {name: tuple(values) for name, values in given.items()})
    return Schedule(part(document, "num_steps", as_it_is), steps, fingerprint, estimator)


def estimator_document(name: str, estimator: Estimator | None) -> dict[str, Any]:
    """The estimator's name, and its parameters if it was fitted.

    Raises:
        ScheduleError: It has options that no file holds.
    """
    if estimator is None:
        return {"name": name}
    if isinstance(estimator, Fitted):
        return {"name": name, "parameters": estimator.to_document()}
    raise ScheduleError(f"estimator: no file holds the options of {estimator}; give it again when the file is loaded")


def read_estimator(document: Any) -> tuple[str, Estimator | None]:
    """Name and, if its parameters are stored, the estimator. `Denoising.estimator_on` makes any other from its name."""
    if document is None:
        return "hold", None
    name, parameters = part(document, "name", as_it_is), document.get("parameters")
    cls = fitted_class(name) if isinstance(name, str) else None
    return name, None if cls is None or parameters is None else part(document, "parameters", cls.from_document)
