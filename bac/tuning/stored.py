"""A candidate as a file: what was tuned once is what a robot starts with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bac.errors import ScheduleError
from bac.fingerprint import Fingerprint
from bac.schedule import Schedule
from bac.tuning.candidate import Candidate
from bac.tuning.multistep import Multistep
from bac.tuning.solver import SOLVERS, Solver

FORMAT, VERSION = "bac.denoising", 1
_BY_NAME = {solver.name: solver for solver in SOLVERS}


def save(candidate: Candidate, path: str | Path) -> None:
    """Write a candidate as JSON."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "method": candidate.method,
        "num_steps": candidate.num_steps,
        "solver": None if candidate.solver is None else candidate.solver.name,
        "weights": candidate.solver.weights if isinstance(candidate.solver, Multistep) else None,
        "timesteps": candidate.timesteps,
        "schedule": None if candidate.schedule is None else candidate.schedule.to_document(),
        "fingerprint": None if candidate.fingerprint is None else candidate.fingerprint.to_dict(),
    }
    Path(path).write_text(json.dumps(document, indent=1) + "\n")


def load(path: str | Path) -> Candidate:
    """Read what `save` wrote.

    Raises:
        ScheduleError: The file is not a complete candidate of this version.
        FileNotFoundError: There is no such file.
    """
    document = _read(path)
    if not is_candidate(path):
        raise ScheduleError(f'{path}: not a tuned policy (no "format": "{FORMAT}"); write one with tuned.save_choice')
    if document.get("version") != VERSION:
        raise ScheduleError(f"{path}: version {document.get('version')}, this bac reads {VERSION}; tune again")
    try:
        schedule, fingerprint = document["schedule"], document["fingerprint"]
        return Candidate(
            document["method"],
            document["num_steps"],
            _solver(document),
            tuple(document["timesteps"]),
            None if schedule is None else Schedule.from_document(schedule, str(path)),
            None if fingerprint is None else Fingerprint.from_dict(fingerprint),
        )
    except (KeyError, TypeError) as error:
        raise ScheduleError(f"{path}: a part is missing or of another type ({error}); save it again") from error


def is_candidate(path: str | Path) -> bool:
    """Whether the file holds a candidate, and not a schedule."""
    document = _read(path)
    return isinstance(document, dict) and document.get("format") == FORMAT


def _solver(document: dict[str, Any]) -> Solver | Multistep | None:
    if document["weights"] is not None:
        return Multistep(tuple(map(tuple, document["weights"])))
    return None if document["solver"] is None else _BY_NAME[document["solver"]]


def _read(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ScheduleError(f"{path}: not complete JSON ({error}); save it again") from error
