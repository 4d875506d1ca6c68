"""Bootstrap intervals, for statistics that have no formula of their own."""

from collections.abc import Callable

import numpy as np

from eval.measure.intervals import Estimate


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    episodes: np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Estimate:
    """A statistic of episodes with its percentile interval (Efron, 1979). The same episodes give the same interval.

    Args:
        statistic: Computes a number from rows, `[n, columns] -> float`.
        episodes: One row for each episode; what is paired stands in one row, `[n, columns]`.
        confidence: Of the interval.
        resamples: Draws of n episodes with replacement.
    """
    generator, n = np.random.default_rng(0), len(episodes)
    values = [statistic(episodes[generator.integers(0, n, n)]) for _ in range(resamples)]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(statistic(episodes)), float(low), float(high))
