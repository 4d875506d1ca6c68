"""What goes into an exported file and what comes out: shapes, dtypes, distributions, scales.

A card may come from anywhere, so each value checks itself: no shape may fill the memory, no dtype be one that NumPy
lacks, and no statistics change the shape of what they normalise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from bac.errors import ScheduleError

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
DISTRIBUTIONS = ("normal", "uniform")
MODES = ("MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10")
_LARGEST = 1 << 28  # numbers in one tensor: 1 GiB in float32
_MOST_DRAWS = 100_000  # in one input; they are made one by one


@dataclass(frozen=True)
class Port:
    """An input or the output.

    Attributes:
        name: Key in the observation batch; ``action`` for the output.
        shape: Its shape, batch first.
        dtype: Name of NumPy's dtype.
        unit: What its numbers mean.
        has_window: Its second axis counts observation steps, oldest first.

    Raises:
        ScheduleError: A value is of another type, or the shape is empty or above 2^28 numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    unit: str
    has_window: bool = False

    def __post_init__(self) -> None:
        check_text(f"{self.name!r:.40}", name=self.name, unit=self.unit)
        _check_shape(self.name, self.shape)
        check_member(self.name, "dtype", self.dtype, DTYPES)
        if not isinstance(self.has_window, bool) or (self.has_window and len(self.shape) < 2):
            raise ScheduleError(f"{self.name}: has_window must be false, or true and the shape have two axes or more")


@dataclass(frozen=True)
class Noise:
    """An input that holds random draws of one shape, in the order in which the policy draws them.

    Attributes:
        name: ``noise``; ``noise.0``, ``noise.1``, ... if the policy draws in several shapes.
        shape: `[draws, ...]`; the rest is the shape of one draw, `[B, T, Da]` for most policies.
        dtype: Name of NumPy's dtype.
        distribution: ``normal`` (mean 0, standard deviation 1) or ``uniform`` (in [0, 1)).

    Raises:
        ScheduleError: A value is of another type, or the shape is empty or above 2^28 numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    distribution: str

    def __post_init__(self) -> None:
        check_text(f"{self.name!r:.40}", name=self.name)
        _check_shape(self.name, self.shape)
        if self.shape[0] > _MOST_DRAWS:
            raise ScheduleError(f"{self.name}: must hold at most {_MOST_DRAWS:,} draws, got {self.shape[0]:,}")
        check_member(self.name, "dtype", self.dtype, DTYPES[:3])
        check_member(self.name, "distribution", self.distribution, DISTRIBUTIONS)


@dataclass(frozen=True)
class Scaling:
    """How LeRobot's processors normalise one quantity. See `bac.exported.scaling`.

    Attributes:
        mode: ``MEAN_STD``, ``MIN_MAX``, ``QUANTILES`` or ``QUANTILE10``.
        low: Mean, minimum or lower quantile; nested lists of the quantity's shape, in the data set's units.
        high: Standard deviation, maximum or upper quantile, likewise.
        eps: Keeps a constant quantity from a division by zero, >= 0.

    Raises:
        ScheduleError: The mode is unknown, or the numbers are not finite in float32 or of different shapes.
    """

    mode: str
    low: Any
    high: Any
    eps: float

    def __post_init__(self) -> None:
        check_member("scaling", "mode", self.mode, MODES)
        low, high, eps = (_finite(name, getattr(self, name)) for name in ("low", "high", "eps"))
        if low.shape != high.shape or eps.shape or eps < 0:
            raise ScheduleError(
                f"scaling: low and high must have one shape and eps be a number >= 0, got shapes {list(low.shape)} and "
                f"{list(high.shape)}, and {self.eps!r:.40}"
            )

    def check_fits(self, port: Port) -> None:
        """Check that it normalises a port's values.

        Raises:
            ScheduleError: Its statistics are not of the port's shape.
        """
        shape = np.shape(self.low)
        given = port.shape[len(port.shape) - len(shape) :]
        if len(shape) > len(port.shape) or any(its not in (1, size) for its, size in zip(shape, given, strict=True)):
            raise ScheduleError(f"scaling: {port.name} has shape {list(port.shape)}, its statistics {list(shape)}")


def check_text(what: str, **values: Any) -> None:
    """Check that values are texts.

    Raises:
        ScheduleError: One is none; the message names it.
    """
    for name, value in values.items():
        if not isinstance(value, str):
            raise ScheduleError(f"{what}: {name} must be a text, got {value!r:.40}")


def check_member(what: str, name: str, value: Any, known: Sequence[str]) -> None:
    """Check that a value is one of a few.

    Raises:
        ScheduleError: It is none of them.
    """
    if not isinstance(value, str) or value not in known:
        raise ScheduleError(f"{what}: {name} must be {', '.join(known[:-1])} or {known[-1]}, got {value!r:.40}")


def _check_shape(what: str, shape: tuple[int, ...]) -> None:
    if not shape or min(shape) < 1 or prod(shape) > _LARGEST:
        raise ScheduleError(
            f"{what}: shape must be of numbers >= 1, with a product of at most {_LARGEST:,}, got {list(shape)!s:.80}"
        )


def _finite(name: str, numbers: Any) -> Any:
    """Numbers as an array; neither texts nor truth values, which NumPy would take for some."""
    array = np.asarray(numbers)
    if array.dtype.kind not in "iuf" or not (np.abs(array.astype(np.float64)) <= np.finfo(np.float32).max).all():
        raise ScheduleError(f"scaling: {name} must be numbers that float32 can hold, got {numbers!r:.60}")
    return array
