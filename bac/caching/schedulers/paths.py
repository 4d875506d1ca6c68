"""Exact shortest paths through a denoising run, where an edge is the reuse between two updates.

An edge runs from an update at step i to the next at step j, and has a cost. A path is a set of update steps beginning
with 0; its last edge ends at K, behind the last step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bac.errors import ScheduleError

Array = npt.NDArray[np.float64]


def cheapest(cost: Any, num_updates: int) -> tuple[int, ...]:
    """The update steps with the least sum of costs.

    Args:
        cost: ``cost[i, j]`` of reusing step i's output at steps i + 1 .. j - 1, `[K, K + 1]`; read where i < j.
        num_updates: In [1, K].

    Raises:
        ScheduleError: `cost` has another shape, or `num_updates` is out of range.
    """
    matrix = _checked(cost, num_updates)
    num_steps = len(matrix)
    best, parents = matrix[0], []
    for _ in range(num_updates - 1):
        total = best[:num_steps, None] + matrix
        parents.append(total.argmin(axis=0))
        best = total.min(axis=0)
    return _back(parents, num_steps)


def least_worst(cost: Any, num_updates: int) -> tuple[int, ...]:
    """The update steps whose dearest edge is cheapest; ties are broken by the second dearest, and so on.

    Exact, because adding the same edge to two paths never changes their order.

    Args:
        cost: As for `cheapest`.
        num_updates: In [1, K].

    Raises:
        ScheduleError: `cost` has another shape, or `num_updates` is out of range.
    """
    matrix = _checked(cost, num_updates)
    num_steps = len(matrix)
    # For each end, the edges of the best path, dearest first, and its steps; None if no path ends there.
    best: list[tuple[list[float], tuple[int, ...]] | None] = [
        None if not np.isfinite(price) else ([float(price)], (0,)) for price in matrix[0]
    ]
    for _ in range(num_updates - 1):
        following: list[tuple[list[float], tuple[int, ...]] | None] = [None] * (num_steps + 1)
        for end in range(num_steps + 1):
            candidates = (
                (sorted([*before[0], float(matrix[start, end])], reverse=True), (*before[1], start))
                for start, before in enumerate(best[:num_steps])
                if before is not None and np.isfinite(matrix[start, end])
            )
            following[end] = min(candidates, default=None)
        best = following
    found = best[num_steps]
    assert found is not None  # K updates at most, so there is a path
    return found[1]


def cheapest_by_pairs(cost: Any, first: Any, num_updates: int) -> tuple[int, ...]:
    """The update steps with the least sum where an edge's cost also depends on the update before it.

    Args:
        cost: ``cost[p, i, j]`` of the steps between i and j after updates at p and i, `[K, K, K + 1]`; read where
            p < i < j.
        first: ``first[j]`` of the steps between 0, the first update, and j, `[K + 1]`.
        num_updates: In [1, K].

    Raises:
        ScheduleError: `cost` has another shape, or `num_updates` is out of range.
    """
    cube, start = np.asarray(cost, dtype=np.float64), np.asarray(first, dtype=np.float64)
    num_steps = len(cube)
    _check_number(num_updates, num_steps)
    if cube.shape != (num_steps, num_steps, num_steps + 1) or start.shape != (num_steps + 1,):
        raise ScheduleError(f"cost: must be of shape [K, K, K + 1] and [K + 1], got {cube.shape} and {start.shape}")
    if num_updates == 1:
        return (0,)
    p, i, j = np.ogrid[:num_steps, :num_steps, : num_steps + 1]
    cube = np.where((p < i) & (i < j), cube, np.inf)
    best = np.full((num_steps, num_steps + 1), np.inf)  # by the last two steps of a path
    best[0, 1:] = start[1:]
    parents = []
    for _ in range(num_updates - 1):
        total = best[:, :num_steps, None] + cube
        parents.append(total.argmin(axis=0))
        best = total.min(axis=0)
    steps = [num_steps, int(best[:, num_steps].argmin())]
    for parent in reversed(parents):
        steps.append(int(parent[steps[-1], steps[-2]]))
    return tuple(reversed(steps[1:]))


def _checked(cost: Any, num_updates: int) -> Array:
    matrix = np.asarray(cost, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != matrix.shape[0] + 1:
        raise ScheduleError(f"cost: must be of shape [K, K + 1], got {matrix.shape}")
    _check_number(num_updates, len(matrix))
    i, j = np.ogrid[: matrix.shape[0], : matrix.shape[1]]
    return np.where(i < j, matrix, np.inf)


def _check_number(num_updates: int, num_steps: int) -> None:
    if not 1 <= num_updates <= num_steps:
        raise ScheduleError(f"num_updates: must be in [1, {num_steps}] (the number of steps), got {num_updates}")


def _back(parents: list[npt.NDArray[np.int64]], end: int) -> tuple[int, ...]:
    steps = [end]
    for parent in reversed(parents):
        steps.append(int(parent[steps[-1]]))
    return (0, *reversed(steps[1:]))
