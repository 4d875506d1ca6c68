"""Reads and writes JSON files: writes are atomic, read errors are one sentence, and old ``bac.json`` is converted.

``bac.json`` holds one way to denoise (`bac.Denoising`). Two older formats are still read: a schedule alone
(``bac.schedule``, version 1), and the first format of `bac tune` (``bac.denoising``, version 1).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bac.errors import ScheduleError

FORMAT, VERSION = "bac.denoising", 2
_SCHEDULE = "bac.schedule"


def write_json(path: str | Path, document: Any) -> None:
    """Write a document so that a reader sees the old file or the new one, never half of one."""
    target = Path(path)
    if not target.parent.is_dir():
        raise ScheduleError(f"{target}: there is no folder {target.parent} to write to; make it first")
    # The draft lies in the same folder, because os.replace is atomic only within one file system.
    descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(document, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the final name
        os.chmod(draft, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(draft, target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def read_json(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ScheduleError: There is no such file, or it holds no JSON object.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ScheduleError(f"{path}: there is no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ScheduleError(f"{path}: cannot be read as JSON ({error}); save it again") from error
    if not isinstance(document, dict):
        raise ScheduleError(f"{path}: must hold a JSON object, holds {type(document).__name__}; save it again")
    return document


def read_denoising(path: str | Path) -> dict[str, Any]:
    """Read a ``bac.json`` of any format and convert it to the current one.

    Raises:
        ScheduleError: The file cannot be read, or holds something else.
    """
    document = read_json(path)
    found = document.get("format"), document.get("version")
    if found == (FORMAT, VERSION):
        return document
    update = next((update for known, update in _OLDER.items() if known == found), None)
    if update is None:
        raise ScheduleError(
            f"{path}: is no bac.json that this bac reads (format {document.get('format')!r}, version "
            f"{document.get('version')!r}). Write one: bac tune, bac calibrate, or denoising.save(path)"
        )
    try:
        return update(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ScheduleError(f"{path}: a part is missing or of another type ({error!r}); save it again") from error


def _from_schedule(document: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a schedule alone; solver and number of steps stay the policy's own."""
    steps = {name: document[name] for name in ("num_steps", "update_steps")}
    return {
        "solver": None,
        "timesteps": [],
        "num_steps": None,
        "schedule": steps,
        "estimator": {"name": document.get("estimator", "hold")},
        "fingerprint": document["fingerprint"],
    }


def _from_first(document: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the first format. Solver and timesteps make its schedule's second fingerprint redundant."""
    solver = document["solver"]
    schedule = None if document["schedule"] is None else _from_schedule(document["schedule"])
    return {
        "solver": None if solver is None else {"name": solver, "coefficients": document["weights"]},
        "timesteps": document["timesteps"],
        "num_steps": document["num_steps"],
        "schedule": None if schedule is None else schedule["schedule"],
        "estimator": None if schedule is None else schedule["estimator"],
        "fingerprint": document["fingerprint"] or _of_policy(schedule),
    }


def _of_policy(schedule: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The part of a schedule's fingerprint that a solver does not change."""
    known = None if schedule is None else schedule["fingerprint"]
    return known and {**known, "num_steps": None, "solver": None, "timesteps": []}


_OLDER: dict[tuple[Any, Any], Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    (FORMAT, 1): _from_first,
    (_SCHEDULE, 1): _from_schedule,
}


def _umask() -> int:
    current = os.umask(0)  # setting the mask is the only way to read it
    os.umask(current)
    return current
