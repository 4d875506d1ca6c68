"""The stored output with a fitted scale and shift per channel."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.fitted import Features, Fitted, LineSums, checked, last_updates
from bac.caching.schedule import Schedule


class ScaleShift(Fitted):
    """Per-channel scale and shift for each block and step.

    The correction of Block Caching (Wimbauer et al., CVPR 2024), which trains it. This is the closed form of
    CacheQuant's DEC (Liu et al., CVPR 2025): scale = covariance / variance, shift = difference of the means. Fitted for
    one schedule. On the features of the fit, its mean square error is never above plain reuse's.
    """

    name = "scale_shift"

    @classmethod
    def fit(cls, schedule: Schedule, features: Iterable[Features]) -> ScaleShift:
        """Least squares of every step's output on the output of its last update.

        Args:
            schedule: The schedule to fit to; it decides which stored step each step reuses.
            features: Outputs of the untouched policy's blocks, batch by batch: by block, `[K, B, ..., D]`.

        Raises:
            ScheduleError: Features are missing or of another number of steps.
        """
        sums = {block: LineSums() for block in schedule.block_names}
        for batch in checked(features, schedule):
            for block, line in sums.items():
                values = batch[block].flatten(1, -2)
                line.add(values[last_updates(schedule, block)], values, over=1)
        parameters = {}
        for block, line in sums.items():
            scale, shift = line.line(default_slope=1.0)
            parameters[block] = {"scale": scale.numpy(), "shift": shift.numpy()}
        return cls(parameters)

    def store(self, state: Tensor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep the output."""
        return output

    def estimate(self, state: Tensor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Scale and shift the stored output."""
        scale = self.parameter(at.block, "scale", at.step, state)
        return torch.addcmul(self.parameter(at.block, "shift", at.step, state), state, scale)
