"""Checks an action chunk before a robot executes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bac.control.timeline import Actions
from bac.errors import ControlError

Range = tuple[Any, Any]


def as_chunk(value: Any) -> Actions:
    """Convert a policy's action chunk, `[1, T, Da]` or `[T, Da]`, to `[T, Da]` float32 on the CPU.

    Raises:
        ControlError: The chunk has another shape, or a number that is not finite.
    """
    array = value.detach().to("cpu", torch.float32).numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape:
        raise ControlError(f"action chunk: must be [1, T, Da] or [T, Da], got {list(array.shape)}; one robot, batch 1")
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ControlError(f"action chunk: action {row}, component {column} is {array[row, column]}")
    return array.astype(np.float32)


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
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), chunk.shape[1:]) for bound in action_range)
    outside = (chunk < low) | (chunk > high)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ControlError(
            f"action chunk: action {row}, component {column} is {chunk[row, column]:.6g}, outside of "
            f"[{low[column]:.6g}, {high[column]:.6g}]. Clip in the policy's postprocessor, or widen action_range"
        )
