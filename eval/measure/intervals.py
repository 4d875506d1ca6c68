"""Intervals for the numbers we publish: one success rate, and paired differences to the dense policy.

Every method plays the same episodes (same world seed, same noise), so differences are taken **pair by pair**. An
episode that both methods solve, or both fail, does not say which is better, and a paired interval accounts for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its confidence interval; `low <= value <= high`, in the unit of `value`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def success_rate(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Success rate in [0, 1] with Wilson's (1927) score interval.

    Unlike the textbook interval p +- z s it stays inside [0, 1] and has a width at 0/n and n/n: 50 successes in 50
    episodes give [0.929, 1], not [1, 1].

    Raises:
        ValueError: `n` is not positive or `successes` is outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"success_rate: need 0 <= successes <= n and n >= 1, got {successes} of {n}")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    # Rounding leaves 1e-17 at the ends, where the limit is known exactly.
    return Estimate(successes / n, float(low) if successes else 0.0, float(high) if successes < n else 1.0)


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


def paired_success_difference(
    reference: Sequence[bool], other: Sequence[bool], *, confidence: float = 0.95
) -> Estimate:
    """`other` minus `reference` success rate on the same episodes, in [-1, 1].

    Newcombe (1998), Statistics in Medicine 17, 2635, method 10: Wilson limits of the two rates, combined by
    square-and-add with the continuity-corrected correlation of the pairs. It keeps a width when every pair agrees.

    Args:
        reference: Success of the dense policy, episode by episode, `[n]`.
        other: Success of the method in the same order of episodes, `[n]`.

    Raises:
        ValueError: The sequences are empty or of different length.
    """
    before, after = _pairs(reference, other, bool)
    n = len(before)
    p1 = success_rate(int(after.sum()), n, confidence=confidence)
    p2 = success_rate(int(before.sum()), n, confidence=confidence)
    phi = _corrected_phi(after, before)
    down1, up1 = p1.value - p1.low, p1.high - p1.value
    down2, up2 = p2.value - p2.low, p2.high - p2.value
    difference = p1.value - p2.value
    below = sqrt(down1**2 - 2 * phi * down1 * up2 + up2**2)
    above = sqrt(up1**2 - 2 * phi * up1 * down2 + down2**2)
    return Estimate(difference, max(-1.0, difference - below), min(1.0, difference + above))


def paired_score_difference(
    reference: Sequence[float], other: Sequence[float], *, confidence: float = 0.95
) -> Estimate:
    """Mean of `other - reference` over the same episodes, with Student's t interval, in the unit of the score.

    Raises:
        ValueError: Fewer than two pairs, or different lengths.
    """
    before, after = _pairs(reference, other, float)
    if len(before) < 2:
        raise ValueError("paired_score_difference: an interval needs at least 2 pairs, got 1")
    mean, half = _t_interval(after - before, confidence)
    return Estimate(mean, mean - half, mean + half)


def _t_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Mean, and half the width of Student's t interval."""
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half)


def _corrected_phi(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two binary vectors, shrunk by n/2 in its numerator when positive (Newcombe's correction)."""
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    margins = first.sum() * (~first).sum() * second.sum() * (~second).sum()
    if margins == 0:
        return 0.0
    numerator = float(both * neither - only_first * only_second)
    if numerator > 0:
        numerator = max(numerator - len(first) / 2, 0.0)
    return numerator / sqrt(float(margins))


def _pairs(reference: Sequence, other: Sequence, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.asarray(reference, dtype=dtype), np.asarray(other, dtype=dtype)
    if before.shape != after.shape or before.ndim != 1 or len(before) == 0:
        raise ValueError(
            f"paired difference: both need the same episodes in the same order, got {before.shape} and {after.shape}"
        )
    return before, after
