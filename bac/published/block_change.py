"""BWCache: reuse for a fixed number of steps after an update that changed the blocks little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bac.caching.block import Block
from bac.caching.interceptors.online import OnlineRule
from bac.errors import ScheduleError
from bac.published.interval import IntervalDecider


@dataclass(frozen=True)
class BlockChange(OnlineRule):
    """BWCache: after an update that changed the blocks little, reuse them for a fixed number of steps.

    Attributes:
        num_steps: Denoising steps K.
        threshold: Reuse follows if the relative L1 change since the update before, averaged over blocks, is smaller.
        interval: Steps of reuse, at least 1.
    """

    threshold: float
    interval: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval < 1:
            raise ScheduleError(f"interval: must be at least 1 step, got {self.interval}")

    def begin(self, blocks: Sequence[Block]) -> IntervalDecider:
        """Watch all blocks."""
        return IntervalDecider(self, len(blocks))

    def next_update(self, step: int, gap: int, change: float) -> int:
        """The step of the next update."""
        return step + 1 + (self.interval if change < self.threshold else 0)
