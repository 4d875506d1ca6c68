"""Chooses update steps by their effect on the action chunk, measured edge by edge (`bac.published.perturbation`).

Similarity measures how much a block's output changes; the outcome measures how much that changes the actions. Late
changes may matter more than early ones, and under a solver that injects noise, errors after the last update are never
corrected. A measured cost includes both. The objective is the sum of the edges' costs, or the worst of them. Neither is
exact, since errors of two edges interact; `bac.caching.schedulers.search` can improve the result further.

Measuring all K^2 / 2 edges is rarely worth it. Costs vary smoothly with an edge's beginning and length, so a grid of
edges is measured and the rest interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bac.caching.calibration import Calibration
from bac.caching.schedule import Schedule
from bac.caching.schedulers import paths
from bac.errors import ScheduleError

Array = npt.NDArray[np.float64]
Edge = tuple[int, int]


def edge_grid(num_steps: int, num_starts: int = 12) -> tuple[Edge, ...]:
    """Edges to measure: from evenly spaced beginnings, edges of doubling lengths and one to the end of the run.

    Args:
        num_steps: Denoising steps K.
        num_starts: Number of beginnings; K of them take every step.

    Raises:
        ScheduleError: `num_starts` is below 1.
    """
    if num_starts < 1:
        raise ScheduleError(f"num_starts: must be at least 1, got {num_starts}")
    starts = sorted({int(step) for step in np.linspace(0, num_steps - 1, min(num_starts, num_steps)).round()})
    edges = set()
    for start in starts:
        length = 2
        while start + length < num_steps:
            edges.add((start, start + length))
            length *= 2
        if start + 1 < num_steps:
            edges.add((start, num_steps))
    return tuple(sorted(edges))


def fill(edges: Sequence[Edge], costs: Any, num_steps: int) -> Array:
    """Interpolate the costs of all edges from the measured ones, `[K, K + 1]`, as `paths.cheapest` takes them.

    The square roots of costs are amplitudes, and are interpolated linearly: first along the length of an edge, between
    0 at length 1 and the measured lengths; then along its beginning, between the measured beginnings.

    Raises:
        ScheduleError: There are no edges, or a cost is negative or not finite.
    """
    values = np.asarray(costs, dtype=np.float64)
    if not len(edges) or values.shape != (len(edges),) or not np.isfinite(values).all() or (values < 0).any():
        raise ScheduleError(f"costs: one finite cost of at least 0 for each of {len(edges)} edges, got {values.shape}")
    amplitude = np.sqrt(values)
    lengths = np.arange(1, num_steps + 1)
    starts = sorted({start for start, _ in edges})
    rows = []
    for begin in starts:
        known = sorted((end - start, a) for (start, end), a in zip(edges, amplitude, strict=True) if start == begin)
        rows.append(np.interp(lengths, [1, *(k for k, _ in known)], [0.0, *(a for _, a in known)]))
    table = np.stack([np.interp(np.arange(num_steps), starts, column) for column in np.stack(rows, axis=1)], axis=1)
    cost = np.full((num_steps, num_steps + 1), np.inf)
    for begin in range(num_steps):
        cost[begin, begin + 1 :] = table[begin, : num_steps - begin] ** 2
    return cost


def outcome_schedule(
    calibration: Calibration,
    cost: Any,
    num_updates: int,
    *,
    objective: Literal["sum", "worst"] = "sum",
    estimator: str = "hold",
    force_last: int = 0,
) -> Schedule:
    """Update all blocks together at the steps with the least measured cost.

    Ours for "sum"; "worst" is the lexicographic minimax path of LeMiCa (Gao et al., NeurIPS 2025), here with the
    action chunk as the outcome.

    Args:
        calibration: Only its blocks, number of steps and fingerprint are used.
        cost: Cost of every edge, `[K, K + 1]`, from `fill`.
        num_updates: Updates of every block, in [1, K].
        objective: ``sum`` minimises the sum of costs, ``worst`` the dearest edge.
        estimator: Name of the estimator that the costs were measured with.
        force_last: Final steps at which every block updates as well.

    Raises:
        ScheduleError: A number is out of range, or `cost` has another shape.
    """
    if objective not in ("sum", "worst"):
        raise ScheduleError(f'objective: must be "sum" or "worst", got {objective!r}')
    steps = (paths.cheapest if objective == "sum" else paths.least_worst)(cost, num_updates)
    by_block = dict.fromkeys(calibration.block_names, steps)
    return Schedule(calibration.num_steps, by_block, calibration.fingerprint, estimator).with_last(force_last)
