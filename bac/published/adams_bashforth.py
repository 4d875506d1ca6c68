"""Adams-Bashforth with variable steps: integrate the derivative estimated from the last updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bac.caching.estimators.forecast import Forecast

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AdamsBashforth(Forecast):
    """Integrates, from the last update on, a polynomial through the derivatives at the last `order` updates.

    A block's derivative is unknown, so it is taken from the polynomial through two updates more than are integrated.
    (Derivatives from the secants between updates would give Newton's forecast: every forecast that uses p + 1 outputs
    and is exact on degree p is Newton's.) Exact on polynomials of degree `order`, with a smaller error than Newton's on
    the next degree. Order 1 follows the tangent at the last update; Newton follows the secant behind it.
    """

    rule = "adams_bashforth"

    @property
    def depth(self) -> int:
        """Number of updates kept: derivatives at p updates take p + 2 outputs."""
        return self.order + 2

    def weights(self, nodes: tuple[float, ...], time: float) -> tuple[float, ...]:
        """Combine derivatives at the newest nodes and their polynomial's integral, both as weights of the outputs."""
        if len(nodes) == 1:
            return (1.0,)
        scale = nodes[0] - nodes[1]
        x = (np.array(nodes) - nodes[0]) / scale
        end = (time - nodes[0]) / scale
        order = max(len(nodes) - 2, 1)
        derivatives = _slopes(x)[:order]
        integrals = np.array([_integral(x[:order], place, end) for place in range(order)])
        weights = integrals @ derivatives
        weights[0] += 1.0
        return tuple(map(float, weights))


def _basis(nodes: Array, place: int) -> np.poly1d:
    """Lagrange's polynomial that is one at ``nodes[place]`` and zero at the others."""
    others = np.delete(nodes, place)
    return np.poly1d(np.poly(others) / np.prod(nodes[place] - others))


def _slopes(nodes: Array) -> Array:
    """Derivative at each node (rows) of the polynomial through values at all nodes (columns)."""
    return np.stack([_basis(nodes, place).deriv()(nodes) for place in range(len(nodes))], axis=1)


def _integral(nodes: Array, place: int, end: float) -> float:
    """Integral from 0 to `end` of Lagrange's polynomial of ``nodes[place]``."""
    return float(_basis(nodes, place).integ()(end))
