"""The base of interval rules: after every full update they choose the step of the next one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from bac.caching.interceptors.online import relative_change


class IntervalRule(Protocol):
    """Turns a change into an interval."""

    @property
    def num_steps(self) -> int:
        """Denoising steps K; the last one updates."""

    def next_update(self, step: int, gap: int, change: float) -> int:
        """The step of the next update.

        Args:
            step: Step of the latest update.
            gap: Steps since the update before.
            change: Relative L1 change between these two updates, averaged over blocks.
        """


class IntervalDecider:
    """Watches all blocks of one run, and asks the rule after the last of them was computed."""

    def __init__(self, rule: IntervalRule, num_blocks: int) -> None:
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
