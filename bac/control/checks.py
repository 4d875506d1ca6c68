"""Checks an action chunk before a robot executes it."""

from __future__ import annotations

import sys
from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np

from bac.control.timeline import Actions
from bac.errors import ControlError

Range = tuple[Any, Any]


def as_chunk(value: Any) -> Actions:
    """Convert a policy's action chunk, `[1, T, Da]` or `[T, Da]`, to `[T, Da]` float32 on the CPU.

    Raises:
        ControlError: The chunk has another shape, or a number that is not finite.
    """
    array = _as_numbers("action chunk", value)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape:
        raise ControlError(f"action chunk: must be [1, T, Da] or [T, Da], got {list(array.shape)}; one robot, batch 1")
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ControlError(f"action chunk: action {row}, component {column} is {array[row, column]}")
    return array


def as_action(value: Any, size: int | None) -> Actions:
    """Convert a safe action to `[Da]` float32, with memory of its own.

    Args:
        size: Number of components (Da); None if it is not known yet.

    Raises:
        ControlError: The action has another shape, or a number that is not finite.
    """
    action = _as_numbers("safe_action", value)
    if action.shape != (size or action.size,) or not np.isfinite(action).all():
        raise ControlError(f"safe_action: must be finite and [{size or 'Da'}], got {action}")
    return action


def as_range(action_range: Range | None) -> Range | None:
    """Convert the lowest and the highest action to float32.

    Raises:
        ControlError: They are not two numbers or actions, or one is NaN, or the lowest is above the highest.
    """
    if action_range is None:
        return None
    bounds = list(action_range) if isinstance(action_range, (tuple, list, np.ndarray)) else []
    if len(bounds) != 2:
        raise ControlError(f"action_range: must be (low, high), got {action_range!r}")
    low, high = (_as_numbers("action_range", bound) for bound in bounds)
    try:
        is_range = bool((low <= high).all())  # also False for NaN, within which every action would lie
    except ValueError:
        is_range = False
    if not is_range:
        raise ControlError(f"action_range: low must be at most high in every component, got {action_range!r}")
    return low, high


def _as_numbers(name: str, value: Any) -> Actions:
    """A copy as float32 on the CPU."""
    try:
        if _is_tensor(value):
            if value.is_complex():
                raise TypeError("it is complex")
            return np.array(value.detach().cpu().float().numpy())
        given = np.asarray(value)
        if given.dtype.kind not in "biuf":
            raise TypeError(f"it is {type(value).__name__} of {given.dtype}")
        with np.errstate(over="ignore"):  # too large becomes infinite, which the caller refuses
            return given.astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ControlError(f"{name}: cannot be read as real numbers: {error}") from error


def _is_tensor(value: Any) -> bool:
    """Whether it is PyTorch's, which a robot that runs an exported policy may do without."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_positive(name: str, value: Any) -> float:
    """A positive, finite number.

    Raises:
        ControlError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not (isfinite(value) and float(value) > 0):
        raise ControlError(f"{name}: must be positive and finite, got {value!r}")
    return float(value)


def as_count(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        ControlError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ControlError(f"{name}: must be at least {least} and whole, got {value!r}")
    return int(value)


def check_range(chunk: Actions, action_range: Range | None) -> None:
    """Refuse actions out of range.

    Args:
        chunk: Actions, `[T, Da]`.
        action_range: Lowest and highest action, each a number or `[Da]`; None for no limit.

    Raises:
        ControlError: A component is out of range.
    """
    if action_range is None:
        return
    try:
        low, high = (np.broadcast_to(bound, chunk.shape[1:]) for bound in action_range)
    except ValueError as error:
        raise ControlError(f"action_range: must fit {chunk.shape[1]} components, got {action_range!r}") from error
    outside = (chunk < low) | (chunk > high)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ControlError(
            f"action chunk: action {row}, component {column} is {chunk[row, column]:.6g}, outside of "
            f"[{low[column]:.6g}, {high[column]:.6g}]. Clip in the policy's postprocessor, or widen action_range"
        )
