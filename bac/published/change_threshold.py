"""Block Caching: reuse a block's output until the missed changes add up to a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.caching.schedulers import statistics
from bac.errors import ScheduleError


def update_steps(change: Any, threshold: float) -> tuple[int, ...]:
    """The update steps of one block.

    With c_t the relative L1 change from step t - 1 to t, an output of step a is kept through the last step t with
    c_(a+1) + ... + c_t <= `threshold`.

    Args:
        change: c_t for every step, `[K]`, >= 0; that of step 0 is not read.
        threshold: Largest sum, >= 0.

    Raises:
        ScheduleError: `threshold` is negative.
    """
    if threshold < 0:
        raise ScheduleError(f"threshold: must be at least 0, got {threshold}")
    steps, missed = [0], 0.0
    for step, moved in enumerate(np.asarray(change, dtype=np.float64)[1:], start=1):
        missed += float(moved)
        if missed > threshold:
            steps.append(step)
            missed = 0.0
    return tuple(steps)


def change_threshold_schedule(calibration: Calibration, threshold: float, *, force_last: int = 0) -> Schedule:
    """Schedule every block on its own, by accumulated change.

    Wimbauer et al., *Cache Me if You Can: Accelerating Diffusion Models through Block Caching* (CVPR 2024). Their
    scale-shift correction is `bac.published.ScaleShift`.

    Args:
        calibration: Statistics of the untouched policy.
        threshold: The paper's delta, >= 0; 0 reuses only outputs that do not change.
        force_last: Final steps at which every block updates as well.

    Raises:
        ScheduleError: `threshold` is negative, or the calibration has no `change`.
    """
    changes = statistics.change(calibration)[:, :, 1]
    steps = {name: update_steps(moved, threshold) for name, moved in zip(calibration.block_names, changes, strict=True)}
    return Schedule(calibration.num_steps, steps, calibration.fingerprint).with_last(force_last)
