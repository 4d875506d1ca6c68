"""Has the share of exceedances risen above what is allowed? Asked after every look, for as long as the robot runs.

A bettor stakes part of their wealth on each look: at an allowed share ``p`` and a found share ``s`` a stake ``b`` in
(0, 1] multiplies it by ``1 + b (s / p - 1)``, on average by 1 at most while nothing has drifted. Whoever falls below 1
begins anew at 1, so a drift is found from whenever it begins. This is an e-detector of the e-CUSUM kind (Shin, Ramdas
and Rinaldo, *E-detectors: a nonparametric framework for sequential change detection*, arXiv 2203.03532). Which stake is
best is not known beforehand: the mean over a grid of them is an e-detector too.

The promise: if at every look the expected share, given all looks before, is at most `allowed`, then the mean number of
looks until the evidence reaches ``m`` is at least ``m``. For each bettor's wealth is at most that of the sum over all
times to begin (the Shiryaev-Roberts form), which grows by 1 per look on average.
"""

from __future__ import annotations

from math import comb

import numpy as np

STAKES = np.linspace(0.05, 1.0, 20)
_BISECTIONS = 40


class Evidence:
    """Collects shares of exceedances.

    Args:
        allowed: Mean share while nothing has drifted, in (0, 1).
    """

    def __init__(self, allowed: float) -> None:
        if not 0 < allowed < 1:
            raise ValueError(f"allowed: must be in (0, 1), got {allowed}")
        self.allowed = allowed
        self._wealth = np.zeros(len(STAKES))

    @property
    def value(self) -> float:
        """Evidence for a drift, >= 0; 0 before the first look, above 1 only since an exceedance."""
        return float(self._wealth.mean())

    def add(self, share: float) -> None:
        """Take in the share of one look, in [0, 1]."""
        if not 0 <= share <= 1:
            raise ValueError(f"share: must be in [0, 1], got {share}")
        self._wealth = np.maximum(self._wealth, 1.0) * (1 + STAKES * (share / self.allowed - 1))


def allowed_share(num_runs: int, rank: int, *, confidence: float = 0.99) -> float:
    """How often a new value may exceed the `rank`-th smallest of `num_runs` calibrated ones.

    An upper bound, valid at `confidence` whatever the distribution, if the values are independent: the smallest p with
    ``P(Binomial(n, p) <= n - rank) <= 1 - confidence`` (Wilks, *Determination of sample sizes for setting tolerance
    limits*, 1941).

    Args:
        num_runs: Calibration runs n, at least 1.
        rank: In [1, n]; n is the largest value.
        confidence: In (0, 1).

    Returns:
        A share in (0, 1).
    """
    if not 1 <= rank <= num_runs:
        raise ValueError(f"rank: must be in [1, {num_runs}], got {rank}")
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        few = sum(comb(num_runs, k) * middle**k * (1 - middle) ** (num_runs - k) for k in range(num_runs - rank + 1))
        low, high = (low, middle) if few <= 1 - confidence else (middle, high)
    return high
