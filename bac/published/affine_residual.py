"""The stored output, scaled by one factor, plus an offset for every element: corrects the mean error of reuse."""

from __future__ import annotations

import torch
from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.fitted import Array, FittedLines, LineSums, last_updates
from bac.caching.schedule import Schedule


class AffineResidual(FittedLines):
    """The error of plain reuse, predicted as ``(factor - 1) F + offset``.

    Rectification in closed form as in ERTACache (Peng et al., arXiv 2508.21091): for each block and step, one factor,
    and an offset for every position and channel. The offset removes the mean error over observations and noise. Fitted
    for one schedule and one shape of a sample. On the features of the fit, its mean square error is never above plain
    reuse's.
    """

    name = "affine_residual"

    @staticmethod
    def _pairs(outputs: Tensor, schedule: Schedule, block: str) -> tuple[Tensor, Tensor]:
        return outputs[last_updates(schedule, block)], outputs

    @staticmethod
    def _solved(sums: LineSums) -> dict[str, Array]:
        (mean_x, mean_y), variance, covariance = sums.centred()
        variance, covariance = variance.flatten(1).sum(dim=1), covariance.flatten(1).sum(dim=1)
        factor = torch.where(variance > 0, covariance / variance.where(variance > 0, 1.0), 1.0)
        offset = mean_y - factor.view(-1, *(1,) * (mean_x.ndim - 1)) * mean_x
        return {"factor": factor.numpy(), "offset": offset.numpy()}

    def store(self, state: Tensor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Tensor:
        """Keep the output."""
        return output

    def estimate(self, state: Tensor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Scale and shift the stored output."""
        factor = float(self.parameters[at.block]["factor"][at.step])
        return torch.add(self.parameter(at.block, "offset", at.step, state), state, alpha=factor)
