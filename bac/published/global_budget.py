"""Unequal budgets: distributes updates over blocks so that their total worth is greatest.

ACS gives every block the same number of updates. Its dynamic programme however knows a curve: the best worth of a block
for *every* number of updates. Choosing one point on each of N curves under a total cost is a knapsack problem, solved
exactly here. Curves of equal cost are added up first (max-plus convolution). The few remaining groups are merged; a
choice that is dearer and worth less than another is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.caching.schedulers.adaptive import update_steps
from bac.errors import ScheduleError

Array = npt.NDArray[np.float64]


def worth_curve(similarity: Array) -> Array:
    """Greatest total worth of a block with 1, 2, ..., K updates, `[K]`: the value ACS maximises."""
    num_steps = len(similarity)
    worth = np.cumsum(np.triu(similarity), axis=1)
    worth[np.tril_indices(num_steps, -1)] = -np.inf
    best, curve = worth[0], [worth[0, -1]]
    last = worth[1:].T
    for _ in range(num_steps - 1):
        best = (last + best[:-1]).max(axis=1)
        curve.append(best[-1])
    return np.array(curve)


def allocate(curves: Array, costs: Sequence[float], budget: float) -> tuple[int, ...]:
    """Choose the number of updates of each block.

    Exact for any costs. The work grows with the number of *different* costs; all blocks of one kind cost the same.

    Args:
        curves: Worth of each block with 1..K updates, `[N, K]`.
        costs: Cost of one update of each block, `[N]`, > 0, e.g. FLOPs or measured seconds.
        budget: Cost of all updates together, at most.

    Returns:
        Updates of each block, in [1, K], that maximise the total worth within the budget.

    Raises:
        ScheduleError: The budget does not pay one update of every block.
    """
    curves = np.asarray(curves, dtype=np.float64)
    prices = np.asarray(costs, dtype=np.float64)
    if (prices <= 0).any():
        raise ScheduleError(f"costs: an update must cost more than nothing, got {prices.min()}")
    if prices.sum() > budget * (1 + 1e-12):  # a budget computed as a sum of costs may be off by a rounding
        raise ScheduleError(f"budget: must pay one update of every block, at least {prices.sum():g}, got {budget:g}")
    groups = [np.flatnonzero(prices == price) for price in np.unique(prices)]
    # The most updates that a group can have while every other block gets one.
    limits = [
        min(len(group) * curves.shape[1], int((budget - prices.sum()) / prices[group[0]] + len(group) + 1e-9))
        for group in groups
    ]
    totals = [_add_up(curves[group], limit) for group, limit in zip(groups, limits, strict=True)]
    counts = _merge([worths for worths, _ in totals], [float(prices[group[0]]) for group in groups], budget)
    updates = np.zeros(len(prices), dtype=int)
    for group, (_, choices), count in zip(groups, totals, counts, strict=True):
        updates[group] = _trace(choices, count)
    return tuple(map(int, updates))


def global_budget_schedule(
    calibration: Calibration,
    num_updates: float,
    *,
    costs: Mapping[str, float] | None = None,
    force_last: int = 0,
) -> Schedule:
    """ACS under the same total cost, with more updates for the blocks that need them.

    Ours. It maximises the similarity summed over all blocks and steps, so by that measure it is never worse than ACS
    with `num_updates` for every block. The measure has a limit: under unequal budgets blocks update at different steps,
    and an update on stale input is worth little (see `bac.caching.schedulers.unified`).

    Args:
        calibration: Statistics of the untouched policy.
        num_updates: Mean number of updates, weighted by cost, in [1, K].
        costs: Block name to the cost of one update, > 0; equal by default.
        force_last: Final steps at which every block updates as well, on top of the budget.

    Raises:
        ScheduleError: A number is out of range, or `costs` lacks a block.
    """
    if not 1 <= num_updates <= calibration.num_steps:
        raise ScheduleError(f"num_updates: must be in [1, {calibration.num_steps}], got {num_updates}")
    names = calibration.block_names
    missing = [name for name in names if costs is not None and name not in costs]
    if missing:
        raise ScheduleError(f"costs: lacks {len(missing)} of the calibration's blocks, first {missing[0]}")
    prices = [1.0 if costs is None else costs[name] for name in names]
    curves = np.stack([worth_curve(similarity) for similarity in calibration.similarity])
    updates = allocate(curves, prices, num_updates * sum(prices))
    steps = {
        name: update_steps(similarity, count)
        for name, similarity, count in zip(names, calibration.similarity, updates, strict=True)
    }
    return Schedule(calibration.num_steps, steps, calibration.fingerprint).with_last(force_last)


def _add_up(curves: Array, limit: int) -> tuple[Array, list[npt.NDArray[np.int64]]]:
    """Best total worth of equally dear blocks with 0..limit updates in all, and each block's share of the updates."""
    total = np.full(limit + 1, -np.inf)
    total[0] = 0.0
    choices = []
    for curve in curves:
        options = np.full((len(curve), limit + 1), -np.inf)
        for count, worth in enumerate(curve[:limit], start=1):
            options[count - 1, count:] = total[: limit + 1 - count] + worth
        choices.append(options.argmax(axis=0) + 1)
        total = options.max(axis=0)
    return total, choices


def _trace(choices: Sequence[npt.NDArray[np.int64]], count: int) -> list[int]:
    shares = []
    for choice in reversed(choices):
        shares.append(int(choice[count]))
        count -= shares[-1]
    return shares[::-1]


def _merge(worths: Sequence[Array], prices: Sequence[float], budget: float) -> list[int]:
    """Updates of each group with the greatest total worth within the budget."""
    spent, gained = np.zeros(1), np.zeros(1)
    origins: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for worth, price in zip(worths, prices, strict=True):
        costs = (spent[:, None] + price * np.arange(len(worth))).ravel()
        values = (gained[:, None] + worth).ravel()
        kept = np.flatnonzero(np.isfinite(values) & (costs <= budget * (1 + 1e-12)))
        # By rising cost, and the greatest worth first among equals; then drop what a cheaper choice beats.
        order = kept[np.lexsort((-values[kept], costs[kept]))]
        best = np.maximum.accumulate(values[order])
        front = order[np.concatenate(([True], best[1:] > best[:-1]))]
        spent, gained = costs[front], values[front]
        origins.append((front // len(worth), front % len(worth)))
    place, counts = len(spent) - 1, []
    for parents, chosen in reversed(origins):
        counts.append(int(chosen[place]))
        place = int(parents[place])
    return counts[::-1]
