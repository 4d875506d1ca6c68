"""Plain reuse: the output of the last update, as it was."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator


@dataclass(frozen=True)
class Hold(Estimator):
    """What the BAC paper, FORA and most other methods reuse. Exact while a block's output does not change."""

    name = "hold"
    is_plain = True

    def store(self, state: Tensor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep the output."""
        return output

    def estimate(self, state: Tensor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Return it."""
        return state
