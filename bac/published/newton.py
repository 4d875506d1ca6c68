"""Newton's extrapolation: the polynomial through the last updates, however uneven their spacing."""

from __future__ import annotations

from dataclasses import dataclass

from bac.caching.estimators.forecast import Forecast, lagrange


@dataclass(frozen=True)
class Newton(Forecast):
    """True divided differences: exact where a block's output is a polynomial of degree `order` in time.

    For order 1 equal to `Taylor`. Higher orders amplify: far from the last update an error of an older output counts
    many times.
    """

    rule = "newton"

    @property
    def depth(self) -> int:
        """A polynomial of degree p takes p + 1 updates."""
        return self.order + 1

    def weights(self, nodes: tuple[float, ...], time: float) -> tuple[float, ...]:
        """Lagrange's form of the same polynomial."""
        return lagrange(nodes, time)
