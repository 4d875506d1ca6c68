"""All blocks update together at evenly spaced steps (FORA; the baseline of the BAC paper)."""

from __future__ import annotations

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError


def uniform_schedule(calibration: Calibration, num_updates: int, *, force_last: int = 0) -> Schedule:
    """Update all blocks at steps ``floor(m K / M)`` for m = 0..M-1.

    Args:
        calibration: Only its blocks, number of steps and fingerprint are used.
        num_updates: Updates M of every block, in [1, K].
        force_last: Final steps at which every block updates as well.

    Raises:
        ScheduleError: A number is out of range.
    """
    num_steps = calibration.num_steps
    if not 1 <= num_updates <= num_steps:
        raise ScheduleError(f"num_updates: must be in [1, {num_steps}] (the number of steps), got {num_updates}")
    steps = tuple(m * num_steps // num_updates for m in range(num_updates))
    schedule = Schedule(num_steps, dict.fromkeys(calibration.block_names, steps), calibration.fingerprint)
    return schedule.with_last(force_last)
