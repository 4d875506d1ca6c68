"""Sequential test whether a method is worse than the reference by less than a margin. It may look again and again.

A bettor stakes part of their wealth on each paired difference. If the hypothesis they bet against is true, the game is
fair or worse. By Ville's inequality their wealth then ever reaches 20 with probability 1/20 at most, **whenever** one
looks (Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*, JRSS B 86, 2024).

There are two bettors. One bets against "inferior by the margin or more" and gets rich if the method is non-inferior.
The other bets against "no worse than the margin". The best stake is not known beforehand, so each bettor spreads the
capital over a grid of stakes (the paper's diversified Kelly bets). Wealth is the mean over the grid, which is a fair
game like each of its parts.

Differences need only lie in [-1, 1]. Successes and scores both do, and the two methods may depend on each other.

**Tasks in turn.** A method may gain on one task and lose on the next. Then the game is fair for a whole turn only: a
bettor who looked in the middle would judge the method by the tasks that happen to come first. Over a whole turn the
expected factors of the tasks multiply to 1 at most if the mean over tasks is no better than the hypothesis says: the
product of numbers is at most that of their means. So one looks after whole turns (`every`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Verdict = Literal["shown", "refuted", "undecided"]
_STAKES = np.linspace(0.05, 1.0, 20)  # shares of the wealth that the worst difference would lose
_BISECTIONS = 24  # narrow an interval of length 2 to 1e-7


@dataclass(frozen=True)
class Outcome:
    """The verdict after the episodes so far.

    Attributes:
        verdict: ``shown``: the mean difference is above minus the margin. ``refuted``: it is below.
        differences: Method minus reference of each pair, in [-1, 1]; `bounds` gives an interval of their mean.
        margin: Largest tolerated loss, in (0, 1).
        confidence: Confidence of either verdict, in (0, 1).
        every: Pairs between two looks.
    """

    verdict: Verdict
    differences: tuple[float, ...]
    margin: float
    confidence: float
    every: int = 1

    @property
    def n(self) -> int:
        """Number of pairs that were looked at."""
        return len(self.differences)


def non_inferiority(
    differences: Iterable[float], margin: float, *, confidence: float = 0.95, every: int = 1
) -> Outcome:
    """Look at paired differences, and stop at the first verdict.

    Args:
        differences: Method minus reference, pair by pair, each in [-1, 1], in an order fixed beforehand.
        margin: The method may be worse by less than this, in (0, 1).
        confidence: Confidence of the verdict, in (0, 1). A method that is inferior by `margin` or more is shown to be
            non-inferior with probability 1 - `confidence` at most; a non-inferior method is refuted as rarely.
        every: Pairs between two looks, at least 1: of several tasks that take turns, those of a whole turn.

    Raises:
        ValueError: A value is out of range.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    if not 0 < margin < 1 or not 0 < confidence < 1:
        raise ValueError(f"margin and confidence must be in (0, 1), got {margin} and {confidence}")
    enough = -np.log(1 - confidence)
    seen: list[float] = []
    for_it: Numbers = np.zeros(len(_STAKES))
    against_it = for_it
    verdict: Verdict = "undecided"
    for difference in differences:
        if not -1 <= difference <= 1:
            raise ValueError(f"differences: must be in [-1, 1], got {difference}")
        seen.append(float(difference))
        for_it = for_it + _log_factors_once(seen[-1], -margin)
        against_it = against_it + _log_factors_once(-seen[-1], margin)
        if len(seen) % every:
            continue
        if _log_mean(for_it) >= enough:
            verdict = "shown"
        elif _log_mean(against_it) >= enough:
            verdict = "refuted"
        if verdict != "undecided":
            break
    return Outcome(verdict, tuple(seen), margin, confidence, every)


def bounds(differences: Iterable[float], *, confidence: float = 0.95, every: int = 1) -> tuple[float, float]:
    """Lower and upper bound of the mean of numbers in [-1, 1]; each holds at `confidence` however often one looks.

    The lower bound is the largest m for which a bettor against "the mean is at most m" had become rich enough at a
    look, after `every` so many numbers.
    """
    values = np.asarray(list(differences), dtype=float)
    return _lower_bound(values, confidence, every), -_lower_bound(-values, confidence, every)


def _lower_bound(values: Numbers, confidence: float, every: int) -> float:
    """Find the lower bound by bisection: the wealth won against "mean <= m" falls as m rises."""
    enough, low, high = -np.log(1 - confidence), -1.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        looks = np.cumsum(_log_factors(values[:, None], middle), axis=0)[every - 1 :: every]
        richest = _log_mean(looks).max() if len(looks) else 0.0
        low, high = (middle, high) if richest >= enough else (low, middle)
    return low


def _log_factors(difference: Numbers | float, mean: float) -> Numbers:
    """Logarithm of the factor by which each stake changes the wealth of a bettor on differences above `mean`.

    A difference of -1 loses the stake. If the true mean is `mean`, nothing is won or lost on average.
    """
    with np.errstate(divide="ignore"):
        factors: Numbers = np.log1p(_STAKES * ((np.asarray(difference) + 1) / (mean + 1) - 1))
        return factors


@lru_cache(maxsize=256)
def _log_factors_once(difference: float, mean: float) -> Numbers:
    """`_log_factors` of one difference, cached because most differences are -1, 0 or 1."""
    return _log_factors(difference, mean)


def _log_mean(log_wealth: Numbers) -> Numbers:
    """Logarithm of the mean over stakes, along the last axis."""
    mean: Numbers = np.logaddexp.reduce(log_wealth, axis=-1) - np.log(len(_STAKES))
    return mean
