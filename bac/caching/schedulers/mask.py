"""Schedules from a mask: of a learned router (HarmoniCa, Learning-to-Cache, LazyDiT's static form) or your own."""

from __future__ import annotations

from typing import Any

import numpy as np

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError


def mask_schedule(calibration: Calibration, mask: Any) -> Schedule:
    """Turn a mask into a schedule.

    Args:
        calibration: Only its blocks, number of steps and fingerprint are used.
        mask: True where a block updates, `[K, N]`, columns in order of evaluation. Compare a router's probabilities
            with a threshold first, ``probability > 0.5``. Step 0 must update every block.

    Raises:
        ScheduleError: The mask has another shape or is not boolean, or a block does not update at step 0.
    """
    array = np.asarray(mask)
    shape = (calibration.num_steps, len(calibration.blocks))
    if array.shape != shape or array.dtype != np.bool_:
        raise ScheduleError(
            f"mask: must be truth values of shape {list(shape)} (steps, blocks), got {array.dtype} of shape "
            f"{list(array.shape)}; compare probabilities with a threshold first: mask > 0.5"
        )
    steps = {
        name: tuple(map(int, np.flatnonzero(column)))
        for name, column in zip(calibration.block_names, array.T, strict=True)
    }
    return Schedule(calibration.num_steps, steps, calibration.fingerprint)
