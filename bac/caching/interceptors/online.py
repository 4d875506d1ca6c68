"""Online rules, which decide during a run what is computed, with the run and the interceptors that ask them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from bac.caching.block import Block
from bac.caching.interceptors.estimated import EstimatedBlock
from bac.caching.interceptors.patch import interceptors
from bac.caching.interceptors.run import DenoisingRun, Slot
from bac.errors import RunError, ScheduleError


class Decider(Protocol):
    """A rule at work in one denoising run and context. At step 0 every block updates without asking it."""

    def updates(self, index: int, step: int, x: Tensor) -> bool:
        """Whether block `index` updates at this step. Blocks ask in order of evaluation, with their input."""

    def computed(self, index: int, step: int, x: Tensor, output: Tensor) -> None:
        """Take note of an update. Called in order of evaluation."""


@dataclass(frozen=True)
class OnlineRule(ABC):
    """Decides during a run which blocks update, from their values: without a calibration, and without replay.

    A decision reads one scalar per step, which waits for the device. The rows of a batch share it.

    Attributes:
        num_steps: Denoising steps K of the policy.
    """

    num_steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise ScheduleError(f"num_steps: must be a whole number of at least 1, got {self.num_steps!r}")

    @abstractmethod
    def begin(self, blocks: Sequence[Block]) -> Decider:
        """Make a decider for one run of these blocks."""


class OnlineRun(DenoisingRun):
    """A denoising run under an online rule. It remembers the decisions of the last complete run as `mask`.

    Args:
        blocks: The blocks, in order of evaluation.
        rule: Decides which blocks update.
        num_contexts: As for `DenoisingRun`; each context decides for itself.
        always_last: Compute every block at the last step, whatever the rule decides.
    """

    def __init__(
        self, blocks: Sequence[Block], rule: OnlineRule, num_contexts: int = 1, *, always_last: bool = False
    ) -> None:
        super().__init__([block.name for block in blocks], rule.num_steps, num_contexts)
        self.rule = rule
        self.always_last = always_last
        self.mask: npt.NDArray[np.bool_] = np.zeros((0, len(blocks)), dtype=bool)
        self._blocks = [block.described() for block in blocks]
        self._deciders: dict[int, Decider] = {}
        self._mask = self.mask

    def __deepcopy__(self, memo: dict[int, Any]) -> OnlineRun:
        memo[id(self)] = clone = OnlineRun(self._blocks, self.rule, self.num_contexts, always_last=self.always_last)
        return clone

    def _open(self) -> None:
        """Enter with deciders that have seen nothing."""
        super()._open()
        self._deciders = {}
        self._mask = np.zeros((self.num_steps, len(self.names)), dtype=bool)

    def check_complete(self) -> None:
        """Check as in any run, and publish the decisions of a complete one."""
        super().check_complete()
        self.mask = self._mask

    def _close(self) -> None:
        """Leave, and drop the deciders with their memory."""
        self._deciders = {}
        super()._close()

    def decide(self, index: int, step: int, context: int, x: Tensor) -> bool:
        """Whether a block updates."""
        asked = self._decider(context).updates(index, step, x) if step else True
        return asked or (self.always_last and step == self.num_steps - 1)

    def note(self, index: int, step: int, context: int, x: Tensor, output: Tensor) -> None:
        """Record an update and tell the decider."""
        if context == 0:  # the mask has no axis for contexts
            self._mask[step, index] = True
        self._decider(context).computed(index, step, x, output)

    def _decider(self, context: int) -> Decider:
        if context not in self._deciders:
            self._deciders[context] = self.rule.begin(self._blocks)
        return self._deciders[context]


class OnlineBlock(EstimatedBlock):
    """An interceptor that asks the run whether its block updates."""

    run: OnlineRun

    def _is_update(self, step: int, context: int, x: Tensor | None) -> bool:
        if x is None:
            raise RunError(f"{self.run.names[self.index]}: takes no tensor, so no online rule can watch it")
        return self.run.decide(self.index, step, context, x)

    def _update(
        self,
        slot: Slot,
        step: int,
        context: int,
        x: Tensor | None,
        inputs: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        before = None if x is None else self._kept(x)
        output = super()._update(slot, step, context, x, inputs, options)
        if before is not None:
            value = self._kept(self._divided(output)[0])
            added = value - before if self.estimator.adds_input else value  # rules watch a layer's contribution
            self.run.note(self.index, step, context, before, added)
        return output


def last_mask(policy: nn.Module) -> npt.NDArray[np.bool_]:
    """The updates of a policy's last complete run: True where a block was computed, `[K, N]`, columns in block order.

    Raises:
        RunError: The policy is not wrapped with an online rule, or made no run yet.
    """
    runs = [interceptor.run for _, _, interceptor in interceptors(policy) if isinstance(interceptor, OnlineBlock)]
    if not runs or not len(runs[0].mask):
        raise RunError(f"{type(policy).__name__}: no run under an online rule yet; wrap it with one and predict")
    return runs[0].mask


def relative_change(now: Tensor, before: Tensor) -> float:
    """``|now - before|_1 / |before|_1`` over all elements; 0 if nothing changed, infinite if zero changed."""
    moved = float((now - before).abs().sum())
    size = float(before.abs().sum())
    return 0.0 if moved == 0 else moved / size if size > 0 else float("inf")
