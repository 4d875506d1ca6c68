"""The denoising run: the store that all blocks share, and the checks that keep reuse safe.

A run begins when the policy's sampler is entered and ends when it returns or raises. The cache is emptied both times,
so nothing outlives an action chunk. A block counts its own evaluations in the run to know its denoising step; it never
reads a timestep. Anything that would make reuse unsafe is an error, not a guess.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from bac.caching.interceptors.ownership import Ownership
from bac.caching.interceptors.turn import Turn
from bac.errors import RunError

Signature = tuple[torch.Size, torch.dtype, torch.device]


@dataclass(slots=True)
class Slot:
    """State of one block in the current run.

    Attributes:
        num_evaluations: Evaluations in all contexts.
        num_named: Evaluations by context, if the policy names contexts.
        features: Stored output, or estimator's state, by context.
        signatures: Shape, dtype and device of the block's input, by context.
    """

    num_evaluations: int = 0
    num_named: dict[int, int] = field(default_factory=dict)
    features: dict[int, Any] = field(default_factory=dict)
    signatures: dict[int, Signature | None] = field(default_factory=dict)


class Prober(Protocol):
    """Compares reused with computed outputs, for some blocks at some steps of a run (see `bac.guarding`)."""

    @property
    def cells(self) -> Container[tuple[str, int]]:
        """The pairs of block name and denoising step at which it compares."""

    def compare(self, block: str, step: int, returned: Any, computed: Any) -> None:
        """Compare the two outputs; the run continues with `returned`."""


@dataclass(frozen=True)
class Orders:
    """A guard's orders for one denoising run.

    Attributes:
        fallback: Follow the update steps of the fallback instead of the schedule's.
        probe: Compare reused blocks with computed ones.
    """

    fallback: bool = False
    probe: Prober | None = None


class DenoisingRun:
    """The current denoising run of one policy, with the store of each block.

    Args:
        names: Blocks that take part, in order of evaluation.
        num_steps: Evaluations that each block makes in a complete run, per context.
        num_contexts: Evaluations of one denoising step, made one after the other ("cond", "uncond"); each context has
            features of its own.

    Attributes:
        context: Number of the current context, if the policy names contexts (`enter_context`); otherwise None.
        orders: Orders of the current run.
        orders_ahead: Orders of the next run; they never change a run that has begun.
        ownership: Whether blocks and policy share tensors.
    """

    def __init__(self, names: Sequence[str], num_steps: int, num_contexts: int = 1) -> None:
        self.names = tuple(names)
        self.num_steps = num_steps
        self.num_contexts = num_contexts
        self.slots: list[Slot] = []
        self.kept: dict[int, Any] = {}
        self.context: int | None = None
        self.orders = self.orders_ahead = Orders()
        self._names: dict[str, int] = {}
        self.thread: int | None = None
        self.ownership = Ownership()
        self._turn = Turn()
        self._warned = False

    def __deepcopy__(self, memo: dict[int, Any]) -> DenoisingRun:
        """A run of the copied policy: same blocks, nothing stored, not entered."""
        memo[id(self)] = clone = DenoisingRun(self.names, self.num_steps, self.num_contexts)
        return clone

    def begin(self) -> None:
        """Enter with an empty cache. The run lasts until the calling function ends it, or is gone.

        Call it inside the `try` whose `finally` calls `end`, so that no interrupt falls between the two.

        Raises:
            RunError: A run has begun already.
        """
        if (other := self._turn.take(sys._getframe(1))) is not None:  # a nested call that waits would wait for itself
            whose = "this thread" if other.thread == threading.get_ident() else "another thread"
            raise RunError(
                f"a denoising run of this policy is going on in {whose}; give each thread a policy of its own: "
                "copy.deepcopy(policy)"
            )
        self._open()

    def end(self) -> None:
        """Leave and empty the cache; without effect in a function that has not begun the run."""
        caller = sys._getframe(1)
        if self._turn.is_held_by(caller):
            self._close()
        self._turn.leave(caller)

    def _open(self) -> None:
        """Empty the cache for a new run."""
        self.slots = [Slot() for _ in self.names]
        self.kept = {}
        self.context, self._names = None, {}
        self.orders = self.orders_ahead
        self.ownership.begin()
        self.thread = threading.get_ident()

    def _close(self) -> None:
        """Empty the cache after a run."""
        self.thread = None
        self.slots = []
        self.kept = {}
        self.ownership.begin()  # keeps no tensor alive

    def enter_context(self, name: str | None) -> None:
        """Assign the next evaluations to a context; None leaves it."""
        self.context = None if name is None else self._names.setdefault(name, len(self._names))

    @property
    def num_expected(self) -> int:
        """Evaluations of each block in a complete run."""
        return self.num_steps * max(self.num_contexts, len(self._names))

    def check_complete(self) -> None:
        """Raise `RunError` unless every block was evaluated exactly once at each denoising step."""
        expected = self.num_expected
        for name, slot in zip(self.names, self.slots, strict=True):
            if slot.num_evaluations != expected:
                raise RunError(self._miscount(name, slot.num_evaluations))
        self.ownership.settle()

    def locate(self, index: int, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Slot, int, int]:
        """Count an evaluation of block `index`; return its slot, denoising step and context.

        Raises:
            RunError: Another thread evaluates the block, it was evaluated more than K times, or its input changed
                shape, dtype or device since the run's first step.
        """
        slot = self.slots[index]
        if self.thread != threading.get_ident():
            raise RunError(
                f"{self.names[index]}: evaluated by another thread than the one in the denoising run; give each "
                "thread a policy of its own: copy.deepcopy(policy)"
            )
        if self.context is None:
            step, context = divmod(slot.num_evaluations, self.num_contexts)
        else:
            step, context = slot.num_named.get(self.context, 0), self.context
        if step >= self.num_steps:
            raise RunError(self._miscount(self.names[index], slot.num_evaluations + 1))
        slot.num_evaluations += 1
        slot.num_named[context] = step + 1
        signature = _signature(inputs, options)
        if slot.signatures.setdefault(context, signature) != signature:
            raise RunError(
                f"{self.names[index]}: its input was {slot.signatures[context]} and is {signature} at denoising step "
                f"{step}; shape, dtype and device must not change within a run"
            )
        return slot, step, context

    def note_outside(self, index: int) -> None:
        """Warn once that a block was evaluated outside a run; it is then computed as without `bac`."""
        if not self._warned and not torch.is_grad_enabled():  # with gradients on, it may be training, which is fine
            self._warned = True
            warnings.warn(
                f"{self.names[index]}: evaluated outside a denoising run, so it was computed and nothing was reused; "
                "caching works through the policy's own sampler (predict_action_chunk, select_action)",
                RuntimeWarning,
                stacklevel=3,
            )

    def _miscount(self, name: str, num_evaluations: int) -> str:
        if num_evaluations == 0:
            return (
                f"{name}: never evaluated in a denoising run, so something else computed its layer (a fused path?); "
                "the action chunk was discarded. Leave the block out: bac.wrap(policy, schedule, blocks=[...])"
            )
        contexts = self.num_expected // self.num_steps
        of_each = f" in each of {contexts} contexts" if contexts > 1 else ""
        return (
            f"{name}: evaluated {num_evaluations} times in a denoising run, the schedule is for "
            f"{self.num_steps}{of_each}; the action chunk was discarded. Set the policy back to "
            f"{self.num_steps} denoising steps, or calibrate and schedule again for the steps it makes"
        )


class ContinuedRun(DenoisingRun):
    """A run whose blocks keep their states from one action chunk to the next, until `forget`."""

    def __init__(self, names: Sequence[str], num_steps: int, num_contexts: int = 1) -> None:
        super().__init__(names, num_steps, num_contexts)
        self._left: list[dict[int, Any]] = []
        self._complete = False

    def __deepcopy__(self, memo: dict[int, Any]) -> ContinuedRun:
        memo[id(self)] = clone = ContinuedRun(self.names, self.num_steps, self.num_contexts)
        return clone

    def _open(self) -> None:
        """Enter with the states of the chunk before, if it was completed."""
        super()._open()
        left, self._left, self._complete = self._left, [], False
        for slot, features in zip(self.slots, left, strict=False):  # nothing is left after a reset or an error
            slot.features = features

    def check_complete(self) -> None:
        """Check as in any run; only a complete run keeps its states."""
        super().check_complete()
        self._complete = True

    def _close(self) -> None:
        """Leave and keep the states of a complete run."""
        self._left = [slot.features for slot in self.slots] if self._complete else []
        super()._close()

    def forget(self) -> None:
        """Drop the states, so that the next chunk begins without any."""
        self._left = []


def _signature(inputs: tuple[Any, ...], options: dict[str, Any]) -> Signature | None:
    for value in (*inputs, *options.values()):
        if isinstance(value, Tensor):
            return value.shape, value.dtype, value.device
    return None
