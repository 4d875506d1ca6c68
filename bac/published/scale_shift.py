"""The stored output with a fitted scale and shift per channel."""

from __future__ import annotations

import torch
from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.fitted import Array, FittedLines, LineSums, last_updates
from bac.caching.schedule import Schedule


class ScaleShift(FittedLines):
    """Per-channel scale and shift for each block and step.

    The correction of Block Caching (Wimbauer et al., CVPR 2024), which trains it. This is the closed form of
    CacheQuant's DEC (Liu et al., CVPR 2025): scale = covariance / variance, shift = difference of the means. Fitted for
    one schedule. On the features of the fit, its mean square error is never above plain reuse's.
    """

    name = "scale_shift"

    @staticmethod
    def _pairs(outputs: Tensor, schedule: Schedule, block: str) -> tuple[Tensor, Tensor]:
        values = outputs.flatten(1, -2)
        return values[last_updates(schedule, block)], values

    @staticmethod
    def _solved(sums: LineSums) -> dict[str, Array]:
        scale, shift = sums.line(default_slope=1.0)
        return {"scale": scale.numpy(), "shift": shift.numpy()}

    def store(self, state: Tensor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep the output."""
        return output

    def estimate(self, state: Tensor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Scale and shift the stored output."""
        scale = self.parameter(at.block, "scale", at.step, state)
        return torch.addcmul(self.parameter(at.block, "shift", at.step, state), state, scale)
