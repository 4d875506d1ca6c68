"""SmoothCache: for each kind of block, the longest reuse whose error stays within a tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.caching.schedulers import statistics
from bac.errors import ScheduleError


def update_steps(change: Any, tolerance: float) -> tuple[int, ...]:
    """From each update on, reuse as long as the relative error is within the tolerance.

    Args:
        change: ``change[t, k]`` is the relative L1 change from step t - k to t, `[K, L + 1]`; L is the longest reuse.
        tolerance: The paper's alpha, >= 0.

    Raises:
        ScheduleError: `tolerance` is negative.
    """
    if tolerance < 0:
        raise ScheduleError(f"tolerance: must be at least 0, got {tolerance}")
    matrix = np.asarray(change, dtype=np.float64)
    last, steps = len(matrix) - 1, [0]
    for step in range(1, last):
        lag = step - steps[-1]
        if lag >= matrix.shape[1] or matrix[step, lag] > tolerance:
            steps.append(step)
    return (*steps, last) if last > 0 else tuple(steps)


def smooth_schedule(calibration: Calibration, tolerance: float) -> Schedule:
    """One list of update steps for each kind of block, from the mean change of its blocks.

    Liu et al., *SmoothCache: A Universal Inference Acceleration Technique for Diffusion Transformers* (CVPR 2025
    workshops). An output is reused for at most three steps; the first and the last step update.

    Args:
        calibration: Statistics of the untouched policy.
        tolerance: Largest relative L1 error of a reuse, >= 0.

    Raises:
        ScheduleError: `tolerance` is negative, or the calibration has no `change`.
    """
    changes = statistics.change(calibration)
    kinds = [block.kind for block in calibration.blocks]
    steps = {
        kind: update_steps(changes[[other is kind for other in kinds]].mean(axis=0), tolerance)
        for kind in dict.fromkeys(kinds)
    }
    by_block = {block.name: steps[block.kind] for block in calibration.blocks}
    return Schedule(calibration.num_steps, by_block, calibration.fingerprint)
