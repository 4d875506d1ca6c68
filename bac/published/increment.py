"""The stored output plus a low-rank map of the change of the block's input."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Anchor, require_input
from bac.caching.estimators.fitted import Features, Fitted, checked, last_updates
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError

_RIDGE = 1e-6  # of the mean variance of an input channel's change; keeps the solve well-posed


class Increment(Fitted):
    """``F + (x - x at the last update) W`` with W of low rank; increment-calibrated caching (ICC, CVPR 2025).

    ICC takes W from the singular vectors of a linear layer's weight. A block is not linear, so here each block gets the
    map of that rank that best predicts the change of its output from the change of its input (reduced-rank least
    squares). Exact on affine blocks if the rank suffices. The input must be computed at every step, norm included, and
    the map costs 2 D rank multiplications a token.
    """

    name = "increment"

    @classmethod
    def fit(
        cls, schedule: Schedule, inputs: Iterable[Features], features: Iterable[Features], rank: int = 8
    ) -> Increment:
        """Fit one map for each block.

        Args:
            schedule: The schedule to fit to; it decides which stored step each step reuses.
            inputs: Inputs of the untouched policy's blocks, batch by batch: by block, `[K, B, ..., D]`.
            features: Outputs of the same blocks on the same batches.
            rank: Rank of W, at least 1.

        Raises:
            ScheduleError: Features are missing or of another number of steps, or `rank` is below 1.
        """
        if rank < 1:
            raise ScheduleError(f"rank: must be at least 1, got {rank}")
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for x, y in zip(checked(inputs, schedule), checked(features, schedule), strict=True):
            for block in schedule.block_names:
                held = last_updates(schedule, block)
                dx, dy = (_rows(values - values[held]) for values in (x[block].double(), y[block].double()))
                before = sums.get(block, (0.0, 0.0))
                sums[block] = (before[0] + dx.mT @ dx, before[1] + dx.mT @ dy)
        parameters = {}
        for block, (xx, xy) in sums.items():
            down, up = _reduced_rank(xx, xy, rank)
            parameters[block] = {"down": down[None].numpy(), "up": up[None].numpy()}
        return cls(parameters)

    def store(self, state: Anchor | None, at: BlockStep, x: Tensor | None, output: Tensor) -> Anchor:
        """Keep input and output."""
        return Anchor(require_input(x, at), output)

    def estimate(self, state: Anchor, at: BlockStep, x: Tensor | None) -> Tensor:
        """Add the mapped change of the input to the stored output."""
        down, up = (self.parameter(at.block, name, 0, state.output) for name in ("down", "up"))
        return state.output + (require_input(x, at) - state.x) @ down @ up


def _rows(values: Tensor) -> Tensor:
    return values.flatten(0, -2)


def _reduced_rank(xx: Tensor, xy: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors `[D, r]` and `[r, D']` of the map that minimises ``||dy - dx W||`` among those of rank r.

    It is the full least-squares map, projected on the leading principal directions of its predictions.
    """
    ridge = _RIDGE * xx.diagonal().mean().clamp_min(1e-30) * torch.eye(len(xx), dtype=xx.dtype)
    full = torch.linalg.solve(xx + ridge, xy)
    _, directions = torch.linalg.eigh(full.mT @ xx @ full)
    leading = directions[:, -rank:]
    return full @ leading, leading.mT
