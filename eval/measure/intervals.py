"""Intervals for the numbers we publish: success rates (`bac.tuning.intervals`), and mean scores."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from bac.tuning.intervals import Estimate, check_pairs, paired_success_difference, success_rate

__all__ = ["Estimate", "mean_score", "paired_score_difference", "paired_success_difference", "success_rate"]


def mean_score(scores: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Mean of scores in [0, 1] with Student's t interval, cut to [0, 1].

    Raises:
        ValueError: Fewer than two scores.
    """
    values = np.asarray(scores, dtype=float)
    if len(values) < 2:
        raise ValueError(f"mean_score: an interval needs at least 2 scores, got {len(values)}")
    mean, half = _t_interval(values, confidence)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


def paired_score_difference(
    reference: Sequence[float], other: Sequence[float], *, confidence: float = 0.95
) -> Estimate:
    """Mean of `other - reference` over the same episodes, with Student's t interval, in the unit of the score.

    Raises:
        ValueError: Fewer than two pairs, or different lengths.
    """
    before, after = np.asarray(reference, dtype=float), np.asarray(other, dtype=float)
    check_pairs(before, after)
    if len(before) < 2:
        raise ValueError("paired_score_difference: an interval needs at least 2 pairs, got 1")
    mean, half = _t_interval(after - before, confidence)
    return Estimate(mean, mean - half, mean + half)


def _t_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Mean, and half the width of Student's t interval."""
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half)
