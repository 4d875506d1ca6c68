"""Plain reuse: the output of the last update, as it was."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.estimators.estimator import Cell


@dataclass(frozen=True)
class Hold:
    """What the BAC paper, FORA and most other methods reuse. Exact while a block's output does not change."""

    name = "hold"
    crosses_chunks = False

    def store(self, state: Tensor | None, cell: Cell, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep the output."""
        return output

    def estimate(self, state: Tensor, cell: Cell, x: Tensor | None) -> Tensor:
        """Return it."""
        return state
