"""A guard beside its schedule, as LeRobot's commands find it, and the response one asks it for by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bac.caching.schedule import Schedule
from bac.errors import ScheduleError
from bac.guarding.guard import Guard, Response

GUARD_NAME = "guard.json"
RESPONSES = ("log", "denser", "dense")


def beside(schedule_path: Path, schedule: Schedule, response: str | None = None) -> Guard:
    """The guard that lies beside a schedule's file.

    Args:
        schedule_path: Of the schedule's file.
        schedule: What is in it.
        response: One of `RESPONSES`; None for the one it was saved with.

    Raises:
        ScheduleError: There is none, its file is not complete, or the response is unknown.
    """
    path = schedule_path.with_name(GUARD_NAME)
    if not path.is_file():
        raise ScheduleError(
            f"guard: there is no {path}; make one: bac guard --policy-path {schedule_path.parent} --env ENV"
        )
    guard = Guard.load(path)
    return guard if response is None else replace(guard, response=response_named(response, schedule, guard.response))


def response_named(name: str, schedule: Schedule, known: Response = "log") -> Response:
    """A guard's response by its name.

    Args:
        name: One of `RESPONSES`.
        schedule: That the guard is for.
        known: What is taken for "denser" if it is a schedule.

    Raises:
        ScheduleError: The name is unknown.
    """
    if name not in RESPONSES:
        raise ScheduleError(f"response: must be {', '.join(RESPONSES[:-1])} or {RESPONSES[-1]}, got {name!r}")
    if name == "denser":
        return known if isinstance(known, Schedule) else denser(schedule)
    return "dense" if name == "dense" else "log"


def denser(schedule: Schedule) -> Schedule:
    """One more update in the middle of every stretch of reuse, so that the longest is half as long."""
    steps = {name: _with_middles(updates, schedule.num_steps) for name, updates in schedule.update_steps.items()}
    return replace(schedule, update_steps=steps)


def _with_middles(updates: tuple[int, ...], num_steps: int) -> tuple[int, ...]:
    """``(0, 4)`` of 6 steps to ``(0, 2, 4, 5)``."""
    middles = [(step + following) // 2 for step, following in zip(updates, (*updates[1:], num_steps), strict=True)]
    return tuple(sorted({*updates, *middles}))
