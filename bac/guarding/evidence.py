"""Evidence that the share of exceedances has risen above the allowed one, updated after every probed chunk.

A bettor stakes part of their wealth on each probed chunk. At an allowed share ``p`` and an observed share ``s``, a
stake ``b`` in (0, 1] multiplies the wealth by ``1 + b (s / p - 1)``, on average by 1 at most while nothing has drifted.
A bettor below 1 begins again at 1, so a drift is found whenever it begins. This is an e-detector of the e-CUSUM kind
(Shin, Ramdas and Rinaldo, *E-detectors: a nonparametric framework for sequential change detection*, arXiv 2203.03532).
The best stake is not known beforehand; the mean over a grid of stakes is an e-detector too.

The guarantee: if at every probed chunk the expected share, given all chunks before, is at most `allowed`, then the mean
number of probed chunks until the evidence reaches ``m`` is at least ``m``. The reason: each bettor's wealth is at most
the sum over all starting times (the Shiryaev-Roberts form), which grows by 1 per probed chunk at most, on average.
"""

from __future__ import annotations

from math import lgamma, log, log1p

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
        """Evidence for a drift, >= 0. It is 0 before the first probed chunk, and above 1 only after an exceedance."""
        return float(self._wealth.mean())

    def add(self, share: float) -> None:
        """Take in the share of exceedances in one probed chunk, in [0, 1]."""
        if not 0 <= share <= 1:
            raise ValueError(f"share: must be in [0, 1], got {share}")
        self._wealth = np.maximum(self._wealth, 1.0) * (1 + STAKES * (share / self.allowed - 1))


def allowed_share(num_runs: int, rank: int, *, confidence: float = 0.99) -> float:
    """Largest plausible share of new values above the `rank`-th smallest of `num_runs` calibrated values.

    An upper bound, valid at `confidence` for any distribution if the values are independent: the smallest p with
    ``P(Binomial(n, p) <= n - rank) <= 1 - confidence`` (Wilks, *Determination of sample sizes for setting tolerance
    limits*, 1941).

    Args:
        num_runs: Calibration runs n, at least 1.
        rank: Rank of the limit, in [1, n]; n is the largest value.
        confidence: Confidence of the bound, in (0, 1).

    Returns:
        A share in (0, 1).
    """
    if not 1 <= rank <= num_runs:
        raise ValueError(f"rank: must be in [1, {num_runs}], got {rank}")
    above = np.arange(num_runs - rank + 1)
    ways = np.array([lgamma(num_runs + 1) - lgamma(k + 1) - lgamma(num_runs - k + 1) for k in above])
    low, high = 0.0, 1.0  # the probability below falls with p, so bisection finds the smallest p
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        terms = ways + above * log(middle) + (num_runs - above) * log1p(-middle)  # logarithms, which do not overflow
        few = np.logaddexp.reduce(terms)
        low, high = (low, middle) if few <= log(1 - confidence) else (middle, high)
    return high
