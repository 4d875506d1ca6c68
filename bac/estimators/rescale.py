"""Rescale the stored output by how much of the block's old input is in its new one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.estimators.estimator import Cell
from bac.estimators.increment import Anchor, _required


@dataclass(frozen=True)
class Rescale:
    """``F <x, x then> / <x then, x then>``, token by token.

    WAMachine's idea, to rescale a cached residual by its projection on a cheap probe; the probe is the block's own
    input, which a pre-norm layer has anyway. Exact for a block that is homogeneous along the ray its input moves on.
    """

    name = "rescale"
    crosses_chunks = False

    def store(self, state: Anchor | None, cell: Cell, x: Tensor | None, output: Tensor) -> Anchor:
        """Keep input and output."""
        return Anchor(_required(x, cell), output)

    def estimate(self, state: Anchor, cell: Cell, x: Tensor | None) -> Tensor:
        """Project and scale; a zero input leaves the output as it is."""
        square = (state.x * state.x).sum(dim=-1, keepdim=True)
        factor = (_required(x, cell) * state.x).sum(dim=-1, keepdim=True) / square.where(square > 0, 1.0)
        return state.output * factor.where(square > 0, 1.0)
