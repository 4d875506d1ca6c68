"""Adaptive Caching Scheduler (ACS): each block's update steps by dynamic programming over its similarity matrix.

Ji et al., *Block-wise Adaptive Caching for Accelerating Diffusion Policy* (arXiv 2506.13456). Holding the output of
step a through step b is worth the sum of the similarities S[a, a..b]. ACS cuts the K steps into `num_updates` segments
with the greatest total worth; each segment holds the output of its first step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.caching.schedulers.bubbling import bubble
from bac.errors import ScheduleError


def update_steps(similarity: Any, num_updates: int) -> tuple[int, ...]:
    """The update steps of one block with the greatest total worth.

    Exact, by dynamic programming in O(M K^2) time and O(K^2) memory; among equals the earliest cut wins.

    Args:
        similarity: ``S[a, t]`` is the worth of step a's output at step t >= a, `[K, K]`; only the upper triangle is
            read.
        num_updates: Updates M in [1, K]; step 0 is always among them.

    Returns:
        M increasing steps beginning with 0.

    Raises:
        ScheduleError: `similarity` is not a finite square matrix, or `num_updates` is out of range.
    """
    matrix = _checked(similarity)
    num_steps = len(matrix)
    if not 1 <= num_updates <= num_steps:
        raise ScheduleError(f"num_updates: must be in [1, {num_steps}] (the number of steps), got {num_updates}")
    worth = _segment_worth(matrix)
    best = worth[0]
    # last[i, j] + best[j]: the segments so far end at step j, and the last one holds from j + 1 through i.
    last = np.ascontiguousarray(worth[1:].T)
    total = np.empty_like(last)
    cuts = []
    for _ in range(num_updates - 1):
        np.add(last, best[:-1], out=total)
        cut = total.argmax(axis=1)
        best = np.take_along_axis(total, cut[:, None], axis=1)[:, 0]
        cuts.append(cut)
    steps = [num_steps]
    for cut in reversed(cuts):
        steps.append(int(cut[steps[-1] - 1]) + 1)
    return (0, *reversed(steps[1:]))


def adaptive_schedule(
    calibration: Calibration, num_updates: int, *, num_bubbled: int = 5, force_last: int = 0
) -> Schedule:
    """The paper's schedule: ACS for every block on its own, then BUA.

    Block-wise Adaptive Caching, Ji et al. (arXiv 2506.13456).

    Args:
        calibration: Statistics of the untouched policy.
        num_updates: Updates per block before bubbling, in [1, K]; the paper's S.
        num_bubbled: How many of the most fragile blocks also update whenever a downstream FFN does; the paper's n
            (5 in simulation, 3 on its robot). 0 leaves ACS alone, which is worse than one schedule for all blocks.
        force_last: Final steps at which every block updates as well. The authors' code forces the last one.

    Raises:
        ScheduleError: A number is out of range.
    """
    steps = {
        name: update_steps(matrix, num_updates)
        for name, matrix in zip(calibration.block_names, calibration.similarity, strict=True)
    }
    schedule = Schedule(calibration.num_steps, steps, calibration.fingerprint)
    errors = dict(zip(calibration.block_names, map(float, calibration.caching_error), strict=True))
    return bubble(schedule, errors, num_bubbled, calibration.blocks).with_last(force_last)


def _segment_worth(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``worth[a, b] = sum over t = a..b of S[a, t]``, minus infinity where b < a, `[K, K]`."""
    upper = np.triu(matrix)
    worth = np.cumsum(upper, axis=1)
    worth[np.tril_indices(len(matrix), -1)] = -np.inf
    return worth


def _checked(similarity: Any) -> npt.NDArray[np.float64]:
    matrix = np.asarray(similarity, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ScheduleError(f"similarity: must be a square matrix [K, K], got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ScheduleError(f"similarity: must be finite, got {np.count_nonzero(~np.isfinite(matrix))} NaN or infinity")
    return matrix
