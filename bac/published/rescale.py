"""Rescale the stored output by how much of the block's old input is in its new one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Anchor, Estimator, require_input


@dataclass(frozen=True)
class Rescale(Estimator):
    """``F <x, x then> / <x then, x then>``, token by token.

    WAMachine's idea, to rescale a cached residual by its projection on a cheap probe; the probe is the block's own
    input, which a pre-norm layer has anyway. Exact for a block that is homogeneous along the ray its input moves on.
    """

    name = "rescale"

    def store(self, state: Anchor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Anchor:
        """Keep input and output."""
        return Anchor(require_input(x, at), output)

    def estimate(self, state: Anchor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Project and scale; a zero input leaves the output as it is."""
        square = (state.x * state.x).sum(dim=-1, keepdim=True)
        factor = (require_input(x, at) * state.x).sum(dim=-1, keepdim=True) / square.where(square > 0, 1.0)
        return state.output * factor.where(square > 0, 1.0)
