"""Normalises observations and un-normalises actions as LeRobot's processors do, operation by operation in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bac.exported.ports import Scaling

Array = npt.NDArray[Any]


def normalised(values: Array, scaling: Scaling | None) -> Array:
    """From the data set's units to the policy's.

    Args:
        values: `[..., *shape of the statistics]`.
        scaling: None leaves the values as they are.
    """
    if scaling is None:
        return values
    low, width = _low_and_width(values, scaling)
    if scaling.mode == "MEAN_STD":
        return np.asarray((values - low) / (width + _as(scaling.eps, values)))
    return np.asarray(2 * (values - low) / width - 1)


def restored(values: Array, scaling: Scaling | None) -> Array:
    """Inverse of `normalised`."""
    if scaling is None:
        return values
    low, width = _low_and_width(values, scaling)
    if scaling.mode == "MEAN_STD":
        return values * width + low
    if scaling.mode == "MIN_MAX":
        return (values + 1) / 2 * width + low
    return (values + 1) * width / 2 + low  # the order of roundings is LeRobot's


def _low_and_width(values: Array, scaling: Scaling) -> tuple[Array, Array]:
    """Mean and standard deviation, or the lower end and the width of the range."""
    low, high = _as(scaling.low, values), _as(scaling.high, values)
    if scaling.mode == "MEAN_STD":
        return low, high
    width = high - low
    return low, np.where(width == 0, _as(scaling.eps, values), width)


def _as(numbers: Any, values: Array) -> Array:
    return np.asarray(numbers, dtype=values.dtype)
