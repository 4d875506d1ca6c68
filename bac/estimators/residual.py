"""What a whole layer added to the stream, added to the stream as it is now."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.estimators.estimator import Cell
from bac.estimators.increment import _required


@dataclass(frozen=True)
class Residual:
    """``x + (F - x then)``: reuse for blocks that are whole layers, which return the stream itself.

    So FBCache, TeaCache, Delta-DiT and cache-dit reuse: gates and inner norms are old with the rest, where the branches
    that `bac` finds by itself are held before their gates. Name the layers as blocks::

        layers = [bac.Block(f"layers.{i}", bac.BlockKind.LAYER, i, layer) for i, layer in enumerate(model.layers)]
        bac.wrap(policy, schedule, blocks=layers, estimator=Residual())

    Reusing every layer of a range reuses what the range added. Exact while a layer adds the same.
    """

    name = "residual"
    crosses_chunks = False

    def store(self, state: Tensor | None, cell: Cell, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep what was added."""
        return output - _required(x, cell)

    def estimate(self, state: Tensor, cell: Cell, x: Tensor | None) -> Tensor:
        """Add it."""
        return _required(x, cell) + state
