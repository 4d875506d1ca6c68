"""Reuse of whole layers: the stored contribution of a layer, added to the current stream."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator, require_input


@dataclass(frozen=True)
class Residual(Estimator):
    """Reuse for blocks that are whole layers, which return the stream: ``x + (F - x at the last update)``.

    FBCache, TeaCache, Delta-DiT and cache-dit reuse this way. It reuses gates and inner norms with the rest, whereas
    the branches that `bac` finds by itself are held before their gates. Name the layers as blocks::

        layers = [bac.Block(f"layers.{i}", "layer", i, layer) for i, layer in enumerate(model.layers)]
        bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Residual()), blocks=layers)

    Reusing every layer of a range reuses the range's contribution. Exact while a layer adds the same.
    """

    name = "residual"
    adds_input = True

    def store(self, state: Tensor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep the difference between output and input."""
        return output - require_input(x, at)

    def estimate(self, state: Tensor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Add the stored difference to the current input."""
        return require_input(x, at) + state
