"""The stored output, rescaled by the projection of the block's new input on its old one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Anchor, Estimator, require_input


@dataclass(frozen=True)
class Rescale(Estimator):
    """``F <x, x'> / <x', x'>``, token by token, where x' is the input at the last update.

    WAMachine rescales a cached residual by its projection on a cheap probe. Here the probe is the block's own input,
    which a pre-norm layer computes anyway. Exact for a block that is homogeneous, if its input moves along a ray.
    """

    name = "rescale"

    def store(self, state: Anchor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Anchor:
        """Keep input and output."""
        return Anchor(require_input(x, at), output)

    def estimate(self, state: Anchor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Project and scale. A zero input at the last update leaves the output unchanged."""
        square = (state.x * state.x).sum(dim=-1, keepdim=True)
        factor = (require_input(x, at) * state.x).sum(dim=-1, keepdim=True) / square.where(square > 0, 1.0)
        return state.output * factor.where(square > 0, 1.0)
