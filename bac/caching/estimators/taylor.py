"""TaylorSeer: a Taylor series whose derivatives are nested difference quotients over the last gap."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

from bac.caching.estimators.forecast import Forecast
from bac.errors import ScheduleError


@dataclass(frozen=True)
class Taylor(Forecast):
    """Forecast of Liu et al., *From Reusing to Forecasting: TaylorSeers* (ICCV 2025).

    With D_0 = F and D_(k+1) = (D_k - D_k at the update before) / (gap between the two updates), the value at a
    distance x is the sum of D_k x^k / k!. Order 1 is the straight line through the last two updates; on robot policies
    under deterministic solvers it served best. From order 2 on, this is *not* the polynomial through the last updates,
    since every order divides by the last gap; that polynomial is `Newton`.

    Attributes:
        order: 1, 2 or 3.
    """

    rule = "taylor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order > 3:
            raise ScheduleError(f"order: Taylor takes 1, 2 or 3, got {self.order}")

    @property
    def depth(self) -> int:
        """Number of updates kept: a derivative of order p takes p + 1."""
        return self.order + 1

    def weights(self, nodes: tuple[float, ...], time: float) -> tuple[float, ...]:
        """Sum the weight of each output over all terms of the series."""
        distance = time - nodes[0]
        terms = [(distance**k / factorial(k), _derivative(nodes, k)) for k in range(len(nodes))]
        return tuple(sum(factor * row[j] for factor, row in terms) for j in range(len(nodes)))


def _derivative(nodes: tuple[float, ...], k: int) -> list[float]:
    """D_k at the newest of `nodes` as weights of the outputs there."""
    if k == 0:
        return [1.0] + [0.0] * (len(nodes) - 1)
    here, before = _derivative(nodes, k - 1), [0.0, *_derivative(nodes[1:], k - 1)]
    return [(a - b) / (nodes[0] - nodes[1]) for a, b in zip(here, before, strict=True)]
