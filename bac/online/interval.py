"""Rules that decide, each time all blocks were computed, for how many steps they are reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bac.block import Block
from bac.errors import ScheduleError
from bac.online.rule import OnlineRule, relative_change


@dataclass(frozen=True)
class BlockChange(OnlineRule):
    """BWCache: after an update that changed the blocks little, reuse them for a fixed number of steps.

    Attributes:
        num_steps: Denoising steps K.
        threshold: Reuse follows where the relative L1 change since the update before, averaged over blocks, is smaller.
        interval: Steps of reuse, at least 1.
    """

    threshold: float
    interval: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval < 1:
            raise ScheduleError(f"interval: must be at least 1 step, got {self.interval}")

    def begin(self, blocks: Sequence[Block]) -> _Decider:
        """Watch all blocks."""
        return _Decider(self, len(blocks))

    def next_update(self, step: int, gap: int, change: float) -> int:
        """The step of the next update."""
        return step + 1 + (self.interval if change < self.threshold else 0)


@dataclass(frozen=True)
class Codebook(OnlineRule):
    """AdaCache: a codebook tells from the blocks' rate of change how far the next update lies.

    Kahatapitiya et al., *Adaptive Caching for Faster Video Generation with Diffusion Transformers* (ICCV 2025),
    without their regularisation by motion, which is of videos.

    Attributes:
        num_steps: Denoising steps K.
        codebook: Pairs of a rate and an interval, rates increasing: with a smaller rate the next update is `interval`
            steps away. Above all rates it is the next step. The rate is the relative L1 change since the update before
            per step, averaged over blocks.
    """

    codebook: tuple[tuple[float, int], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = [rate for rate, _ in self.codebook]
        if rates != sorted(rates) or any(interval < 1 for _, interval in self.codebook):
            raise ScheduleError(f"codebook: rates must increase and intervals be at least 1, got {self.codebook}")

    def begin(self, blocks: Sequence[Block]) -> _Decider:
        """Watch all blocks."""
        return _Decider(self, len(blocks))

    def next_update(self, step: int, gap: int, change: float) -> int:
        """The step of the next update."""
        return step + next((interval for rate, interval in self.codebook if change / gap < rate), 1)


class _Decider:
    def __init__(self, rule: BlockChange | Codebook, num_blocks: int) -> None:
        self.rule = rule
        self.before: list[Tensor | None] = [None] * num_blocks
        self.last = 0
        self.next = 1
        self.changes: list[float] = []

    def updates(self, index: int, step: int, x: Tensor) -> bool:
        return step >= self.next or step == self.rule.num_steps - 1

    def computed(self, index: int, step: int, x: Tensor, output: Tensor) -> None:
        before, self.before[index] = self.before[index], output
        if before is not None:
            self.changes.append(relative_change(output, before))
        if index == len(self.before) - 1:
            if self.changes:
                change = sum(self.changes) / len(self.changes)
                self.next = self.rule.next_update(step, step - self.last, change)
            self.last, self.changes = step, []
