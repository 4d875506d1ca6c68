"""Finds the guard beside a schedule's file, for LeRobot's commands, and a response by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bac.caching.schedule import Schedule
from bac.errors import ScheduleError
from bac.guarding.guard import Guard, Response

GUARD_NAME = "guard.json"
RESPONSES = ("log", "denser", "dense")


def beside(schedule_path: Path, schedule: Schedule, response: str | None = None) -> Guard:
    """Read the guard beside a schedule's file.

    Args:
        schedule_path: Path of the schedule's file.
        schedule: The schedule in it.
        response: One of `RESPONSES`; None keeps the response that the guard was saved with.

    Raises:
        ScheduleError: There is no guard, its file is not complete, or the response is unknown.
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
        schedule: The schedule that the guard watches.
        known: The guard's current response; if it is a schedule, "denser" keeps it.

    Raises:
        ScheduleError: The name is unknown.
    """
    if name not in RESPONSES:
        raise ScheduleError(f"response: must be {', '.join(RESPONSES[:-1])} or {RESPONSES[-1]}, got {name!r}")
    if name == "denser":
        return known if isinstance(known, Schedule) else denser(schedule)
    return "dense" if name == "dense" else "log"


def denser(schedule: Schedule) -> Schedule:
    """Add an update in the middle of every stretch of reuse, which halves the longest stretch."""
    steps = {name: _with_middles(updates, schedule.num_steps) for name, updates in schedule.update_steps.items()}
    return replace(schedule, update_steps=steps)


def _with_middles(updates: tuple[int, ...], num_steps: int) -> tuple[int, ...]:
    """Map e.g. ``(0, 4)`` of 6 steps to ``(0, 2, 4, 5)``."""
    middles = [(step + following) // 2 for step, following in zip(updates, (*updates[1:], num_steps), strict=True)]
    return tuple(sorted({*updates, *middles}))
