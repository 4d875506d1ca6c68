"""Pyramid Attention Broadcast: each kind of block updates at its own interval, within a window of steps."""

from __future__ import annotations

from collections.abc import Mapping

from bac.caching.block import BlockKind
from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError


def by_kind_schedule(
    calibration: Calibration, intervals: Mapping[BlockKind, int], *, window: tuple[int, int] | None = None
) -> Schedule:
    """Update blocks of a kind at the steps that its interval divides.

    Zhao et al., *Real-Time Video Generation with Pyramid Attention Broadcast* (ICLR 2025): the less a kind of block
    changes, the longer it is reused; cross-attention longest.

    Args:
        calibration: Only its blocks, number of steps and fingerprint are used.
        intervals: Block kind to interval in steps, at least 1; other kinds are computed at every step.
        window: First step of the window, and the first step after it; outside, every block is computed. By default the
            whole run.

    Raises:
        ScheduleError: An interval is below 1, or the window is not within the run.
    """
    num_steps = calibration.num_steps
    start, stop = window or (0, num_steps)
    if not 0 <= start <= stop <= num_steps:
        raise ScheduleError(f"window: must lie within the run's steps 0..{num_steps}, got {window}")
    small = {kind.value: interval for kind, interval in intervals.items() if interval < 1}
    if small:
        raise ScheduleError(f"intervals: must be at least 1 step, got {small}")
    steps: dict[str, tuple[int, ...]] = {}
    for block in calibration.blocks:
        interval = intervals.get(block.kind, 1)
        steps[block.name] = tuple(t for t in range(num_steps) if t % interval == 0 or not start <= t < stop)
    return Schedule(num_steps, steps, calibration.fingerprint)
