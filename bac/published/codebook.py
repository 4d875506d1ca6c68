"""AdaCache: a codebook maps the blocks' rate of change to the interval until the next update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bac.caching.block import Block
from bac.caching.interceptors.online import OnlineRule
from bac.errors import ScheduleError
from bac.published.interval import IntervalDecider


@dataclass(frozen=True)
class Codebook(OnlineRule):
    """AdaCache: a codebook maps the blocks' rate of change to the interval until the next update.

    Kahatapitiya et al., *Adaptive Caching for Faster Video Generation with Diffusion Transformers* (ICCV 2025),
    without their regularisation by motion, which needs video.

    Attributes:
        num_steps: Denoising steps K.
        codebook: Pairs of a rate and an interval, rates increasing. The first pair with a rate above the measured one
            gives the steps until the next update; if there is none, the next step updates. The measured rate is the
            relative L1 change since the update before, per step, averaged over blocks.
    """

    codebook: tuple[tuple[float, int], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = [rate for rate, _ in self.codebook]
        if rates != sorted(rates) or any(interval < 1 for _, interval in self.codebook):
            raise ScheduleError(f"codebook: rates must increase and intervals be at least 1, got {self.codebook}")

    def begin(self, blocks: Sequence[Block]) -> IntervalDecider:
        """Watch all blocks."""
        return IntervalDecider(self, len(blocks))

    def next_update(self, step: int, gap: int, change: float) -> int:
        """The step of the next update."""
        return step + next((interval for rate, interval in self.codebook if change / gap < rate), 1)
