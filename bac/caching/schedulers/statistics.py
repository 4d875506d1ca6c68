"""Statistics of a calibration that an earlier `bac` may not have measured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bac.caching.calibration import Calibration
from bac.errors import ScheduleError

Array = npt.NDArray[np.float64]


def gram(calibration: Calibration) -> Array:
    """Mean products of outputs at two steps, `[N, K, K]`. Raises `ScheduleError` if they were not measured."""
    return _measured("gram", calibration.gram)


def change(calibration: Calibration) -> Array:
    """Relative L1 change over 0..3 steps, `[N, K, 4]`. Raises `ScheduleError` if it was not measured."""
    return _measured("change", calibration.change)


def _measured(name: str, values: Array | None) -> Array:
    if values is None:
        raise ScheduleError(
            f"calibration: was made by an earlier bac and has no {name}; calibrate again: "
            "bac.calibrate(policy, batches)"
        )
    return values
