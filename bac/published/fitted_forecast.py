"""A first-order forecast with a fitted slope."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.fitted import Array, FittedLines, LineSums, last_updates
from bac.caching.schedule import Schedule


class Change(NamedTuple):
    """The last update's output, and its change since the update before (None at the first)."""

    newest: Tensor
    difference: Tensor | None


class FittedForecast(FittedLines):
    """``F + gain (F - F before) + offset`` with gain and offset per channel, block and step; ours.

    Plain reuse has gain 0, and a first-order forecast has gain = distance / gap, both with offset 0. On the features of
    the fit, the mean square error is therefore never above either's. Under injected noise the fit shrinks the gain.
    """

    name = "fitted_forecast"

    @staticmethod
    def _pairs(outputs: Tensor, schedule: Schedule, block: str) -> tuple[Tensor, Tensor]:
        values = outputs.flatten(1, -2).double()
        newest = values[last_updates(schedule, block)]
        return newest - values[last_updates(schedule, block, 1)], values - newest

    @staticmethod
    def _solved(sums: LineSums) -> dict[str, Array]:
        gain, offset = sums.line(default_slope=0.0)
        return {"gain": gain.numpy(), "offset": offset.numpy()}

    def store(self, state: Change | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Change:
        """Keep the output and its change."""
        return Change(output, None if state is None else output - state.newest)

    def estimate(self, state: Change, at: BlockStep, x: Tensor | None) -> Tensor:
        """Continue the last change."""
        value = state.newest + self.parameter(at.block, "offset", at.step, state.newest)
        if state.difference is None:
            return value
        return torch.addcmul(value, state.difference, self.parameter(at.block, "gain", at.step, state.newest))
