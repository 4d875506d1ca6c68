"""Newton's extrapolation: the polynomial through the last updates, however uneven their spacing."""

from __future__ import annotations

from dataclasses import dataclass

from bac.caching.estimators.forecast import Forecast, lagrange


@dataclass(frozen=True)
class Newton(Forecast):
    """True divided differences: exact if a block's output is a polynomial of degree `order` in time.

    Order 1 equals `Taylor`. Higher orders amplify errors of older outputs, most of all far from the last update.
    """

    rule = "newton"

    @property
    def depth(self) -> int:
        """Number of updates kept: a polynomial of degree p takes p + 1."""
        return self.order + 1

    def weights(self, nodes: tuple[float, ...], time: float) -> tuple[float, ...]:
        """Lagrange's form of the same polynomial."""
        return lagrange(nodes, time)
