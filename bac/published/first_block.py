"""FBCache: compute the first layer; if it changed little, reuse all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bac.caching.block import Block
from bac.caching.interceptors.online import OnlineRule, relative_change


@dataclass(frozen=True)
class FirstBlock(OnlineRule):
    """First Block Cache, as in ParaAttention and diffusers.

    The first layer's residual (the sum of its blocks) is compared with its residual at the last step that computed all
    layers. Reusing the other layers' blocks reuses their residual.

    Attributes:
        num_steps: Denoising steps K.
        threshold: All layers are computed if the relative L1 change is greater.
    """

    threshold: float

    def begin(self, blocks: Sequence[Block]) -> _Decider:
        """Watch the blocks of the first layer."""
        return _Decider(self.threshold, sum(block.layer == blocks[0].layer for block in blocks))


class _Decider:
    def __init__(self, threshold: float, num_first: int) -> None:
        self.threshold = threshold
        self.num_first = num_first
        self.residual = torch.zeros(())
        self.reference: Tensor | None = None
        self.decided = (0, True)

    def updates(self, index: int, step: int, x: Tensor) -> bool:
        if index < self.num_first:
            return True
        if self.decided[0] != step:  # the first block after the first layer decides for the step
            assert self.reference is not None  # set at step 0
            self.decided = step, relative_change(self.residual, self.reference) > self.threshold
            if self.decided[1]:
                self.reference = self.residual
        return self.decided[1]

    def computed(self, index: int, step: int, x: Tensor, output: Tensor) -> None:
        if index < self.num_first:
            self.residual = output if index == 0 else self.residual + output
            if step == 0:
                self.reference = self.residual
