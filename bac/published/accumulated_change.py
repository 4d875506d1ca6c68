"""TeaCache: reuse everything while the input's accumulated change stays below a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bac.caching.block import Block
from bac.caching.interceptors.online import OnlineRule, relative_change


@dataclass(frozen=True)
class AccumulatedChange(OnlineRule):
    """Liu et al., *Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model* (TeaCache, CVPR 2025).

    At every step, a polynomial of the relative L1 change of the first block's input is added to a sum. When the sum
    reaches the threshold, all blocks update and the sum restarts. All blocks also update at the first and last step.

    Attributes:
        num_steps: Denoising steps K.
        threshold: The paper's delta.
        coefficients: Coefficients of the polynomial that rescales a change, highest power first. The paper fits them
            for each model; the default is the identity.
    """

    threshold: float
    coefficients: tuple[float, ...] = (1.0, 0.0)

    def begin(self, blocks: Sequence[Block]) -> _Decider:
        """Watch the input of the first block."""
        return _Decider(self)

    def rescaled(self, change: float) -> float:
        """The polynomial of a change."""
        value = 0.0
        for coefficient in self.coefficients:
            value = value * change + coefficient
        return value


class _Decider:
    def __init__(self, rule: AccumulatedChange) -> None:
        self.rule = rule
        self.accumulated = 0.0
        self.before: Tensor | None = None
        self.decided = True

    def updates(self, index: int, step: int, x: Tensor) -> bool:
        if index == 0:
            assert self.before is not None  # set at step 0
            self.accumulated += self.rule.rescaled(relative_change(x, self.before))
            self.before = x.clone()
            self.decided = self.accumulated >= self.rule.threshold or step == self.rule.num_steps - 1
            if self.decided:
                self.accumulated = 0.0
        return self.decided

    def computed(self, index: int, step: int, x: Tensor, output: Tensor) -> None:
        if index == step == 0:
            self.before = x.clone()
