"""What a whole layer added to the stream, added to the stream as it is now."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator, require_input


@dataclass(frozen=True)
class Residual(Estimator):
    """``x + (F - x then)``: reuse for blocks that are whole layers, which return the stream itself.

    So FBCache, TeaCache, Delta-DiT and cache-dit reuse: gates and inner norms are old with the rest, where the branches
    that `bac` finds by itself are held before their gates. Name the layers as blocks::

        layers = [bac.Block(f"layers.{i}", bac.BlockKind.LAYER, i, layer) for i, layer in enumerate(model.layers)]
        bac.wrap(policy, schedule, blocks=layers, estimator=Residual())

    Reusing every layer of a range reuses what the range added. Exact while a layer adds the same.
    """

    name = "residual"
    adds_input = True

    def store(self, state: Tensor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep what was added."""
        return output - require_input(x, at)

    def estimate(self, state: Tensor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Add it."""
        return require_input(x, at) + state
