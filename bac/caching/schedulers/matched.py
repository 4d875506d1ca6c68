"""ACS matched to an estimator: it minimises the expected error instead of maximising similarity.

An estimate that is a weighted sum of stored outputs has the mean-square error w G w, where G holds the mean products of
a block's outputs at every two steps. The calibration alone therefore gives the error of any forecast between any
updates, without another run. The error of a forecast depends on the last two updates, so dynamic programming runs over
pairs of updates; it is still exact.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from bac.caching.calibration import Calibration
from bac.caching.estimators.hold import Hold
from bac.caching.estimators.taylor import Taylor
from bac.caching.schedule import Schedule
from bac.caching.schedulers import paths, statistics
from bac.errors import ScheduleError

Array = npt.NDArray[np.float64]


def update_steps(gram: Array, num_updates: int, order: Literal[0, 1] = 1) -> tuple[int, ...]:
    """The update steps with the least expected squared error.

    Args:
        gram: Mean products of outputs at two steps, `[K, K]`.
        num_updates: In [1, K].
        order: 0 for plain reuse, 1 for the line through the last two updates.

    Raises:
        ScheduleError: `num_updates` or `order` is out of range.
    """
    matrix = np.asarray(gram, dtype=np.float64)
    held = _until_next(_held_error(matrix))
    if order == 0:
        return paths.cheapest(held, num_updates)
    if order != 1:
        raise ScheduleError(f"order: must be 0 (plain reuse) or 1 (a line), got {order}")
    return paths.cheapest_by_pairs(_until_next(_line_error(matrix)), held[0], num_updates)


def matched_schedule(
    calibration: Calibration,
    num_updates: int,
    *,
    order: Literal[0, 1] = 1,
    together: bool = True,
    force_last: int = 0,
) -> Schedule:
    """Schedule the update steps with the least expected squared error under the estimator of this order.

    Ours. It sums the squared errors of the blocks' outputs in the units of the residual stream, so blocks that move
    the stream most count most. It ignores how an error propagates; `bac.published.outcome` measures that.

    Args:
        calibration: Statistics of the untouched policy.
        num_updates: Updates of every block, in [1, K].
        order: 0 for `Hold`, 1 for ``Taylor(1)`` (`bac.caching.estimators`); the schedule carries the name.
        together: One list of steps for all blocks, which served best; otherwise each block has its own.
        force_last: Final steps at which every block updates as well.

    Raises:
        ScheduleError: A number is out of range, or the calibration has no `gram`.
    """
    grams = statistics.gram(calibration)
    names = calibration.block_names
    if together:
        steps = dict.fromkeys(names, update_steps(grams.sum(axis=0), num_updates, order))
    else:
        steps = {name: update_steps(gram, num_updates, order) for name, gram in zip(names, grams, strict=True)}
    estimator = (Taylor(1) if order else Hold()).name
    schedule = Schedule(calibration.num_steps, steps, calibration.fingerprint, estimator)
    return schedule.with_last(force_last)


def _held_error(gram: Array) -> Array:
    """Mean square of f_t - f_i, `[i, t]`."""
    power = np.diag(gram)
    return power[None, :] + power[:, None] - 2 * gram


def _line_error(gram: Array) -> Array:
    """Mean square of f_t - (1 + c) f_i + c f_p with c = (t - i) / (i - p), `[p, i, t]`; valid for p < i < t."""
    power, steps = np.diag(gram), np.arange(len(gram))
    gap = steps[None, :, None] - steps[:, None, None]
    c = (steps[None, None, :] - steps[None, :, None]) / np.where(gap > 0, gap, 1)
    error = power + (1 + c) ** 2 * power[None, :, None] + c**2 * power[:, None, None]
    return np.asarray(error - 2 * (1 + c) * gram + 2 * c * gram[:, None, :] - 2 * c * (1 + c) * gram[:, :, None])


def _until_next(error: Array) -> Array:
    """Sums over the steps between the last update i and the next j: ``[..., i, t]`` to ``[..., i, j]``, j <= K."""
    num_steps = error.shape[-1]
    upper = np.triu(error, 1)
    sums = np.cumsum(upper, axis=-1)
    return np.concatenate((np.zeros((*error.shape[:-1], 1)), sums), axis=-1)[..., : num_steps + 1]
