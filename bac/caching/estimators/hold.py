"""Plain reuse: a block returns the output of its last update."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator


@dataclass(frozen=True)
class Hold(Estimator):
    """Plain reuse, as in the BAC paper, FORA and most others. Exact while a block's output does not change."""

    name = "hold"
    is_plain = True

    def store(self, state: Tensor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep the output."""
        return output

    def estimate(self, state: Tensor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Return the stored output."""
        return state
