"""Intervals for success rates, and for differences of results on the same episodes.

Two ways to denoise play the same episodes, so differences are taken **pair by pair**. An episode that both solve, or
both fail, does not say which is better, and a paired interval accounts for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]


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
    rate, z2 = successes / n, NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * rate * (1 - rate) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    # Rounding leaves 1e-17 at the ends, where the limit is known exactly.
    return Estimate(rate, centre - half if successes else 0.0, centre + half if successes < n else 1.0)


def paired_success_difference(
    reference: Sequence[bool], other: Sequence[bool], *, confidence: float = 0.95
) -> Estimate:
    """`other` minus `reference` success rate on the same episodes, in [-1, 1].

    Newcombe (1998), Statistics in Medicine 17, 2635, method 10: Wilson limits of the two rates, combined by
    square-and-add with the continuity-corrected correlation of the pairs. It keeps a width when every pair agrees.

    Args:
        reference: Success of the policy itself, episode by episode, `[n]`.
        other: Success of the method in the same order of episodes, `[n]`.

    Raises:
        ValueError: The sequences are empty or of different length.
    """
    before, after = (np.asarray(results, dtype=bool) for results in (reference, other))
    check_pairs(before, after)
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


def check_pairs(before: npt.NDArray[np.generic], after: npt.NDArray[np.generic]) -> None:
    """Refuse results that are not of the same episodes.

    Raises:
        ValueError: The arrays are empty, or have another shape than `[n]` both.
    """
    if before.shape != after.shape or before.ndim != 1 or len(before) == 0:
        raise ValueError(
            f"paired difference: both need the same episodes in the same order, got {before.shape} and {after.shape}"
        )


def _corrected_phi(first: Flags, second: Flags) -> float:
    """Correlation of two binary vectors, shrunk by n/2 in its numerator when positive (Newcombe's correction)."""
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    margins = int(first.sum()) * int((~first).sum()) * int(second.sum()) * int((~second).sum())
    if margins == 0:
        return 0.0
    numerator = float(both * neither - only_first * only_second)
    if numerator > 0:
        numerator = max(numerator - len(first) / 2, 0.0)
    return numerator / sqrt(float(margins))
