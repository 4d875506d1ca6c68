"""What is stored during one denoising run, and the interceptors that store and reuse it.

A run begins when the policy's sampler is entered and ends when it returns or raises; both times the cache is empty, so
nothing outlives an action chunk. The denoising step of a block is the number of its own evaluations in the run, never
a timestep. Whatever would make reuse unsafe is an error, not a guess.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from bac.errors import RunError
from bac.nested import map_tensors
from bac.patch import Interceptor

Signature = tuple[torch.Size, torch.dtype, torch.device]
Applies = Callable[[tuple[Any, ...], dict[str, Any]], bool]


@dataclass(slots=True)
class Slot:
    """What one block has done in the current run; features and input signatures by context.

    Attributes:
        num_evaluations: In all contexts.
        num_named: By context, where the host names them.
    """

    num_evaluations: int = 0
    num_named: dict[int, int] = field(default_factory=dict)
    features: dict[int, Any] = field(default_factory=dict)
    signatures: dict[int, Signature | None] = field(default_factory=dict)


class Prober(Protocol):
    """Compares, at some cells of a run, what is reused with what the block computes (see `bac.guarding`)."""

    @property
    def cells(self) -> Container[tuple[str, int]]:
        """Names of blocks and denoising steps at which it compares."""

    def compare(self, block: str, step: int, returned: Any, computed: Any) -> None:
        """Told of both; what was returned is what the run goes on with."""


@dataclass(frozen=True)
class Orders:
    """What a guard wants of a denoising run.

    Attributes:
        fallback: Follow the update steps of the fallback instead of the schedule's.
        probe: Compare reused blocks with computed ones.
    """

    fallback: bool = False
    probe: Prober | None = None


class DenoisingRun:
    """The current denoising run of one policy: who is in it, and what each block has stored.

    Args:
        names: Blocks that take part, in order of evaluation.
        num_steps: Evaluations that each block makes in a complete run, per context.
        num_contexts: Evaluations of one denoising step, made one after the other ("cond", "uncond"); each context has
            features of its own.

    Attributes:
        context: Number of the context that is evaluated, where the host names them (`enter_context`); otherwise None.
        orders: Of the current run.
        orders_ahead: Of the next; they come into force when it begins, never within one.
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
        self._entered = threading.Lock()
        self._warned = False

    def __deepcopy__(self, memo: dict[int, Any]) -> DenoisingRun:
        """A run of the copied policy: same blocks, nothing stored, not entered."""
        memo[id(self)] = clone = DenoisingRun(self.names, self.num_steps, self.num_contexts)
        return clone

    def begin(self) -> None:
        """Enter with an empty cache. Raises `RunError` if a run is going on already."""
        if not self._entered.acquire(blocking=False):
            whose = "this thread" if self.thread == threading.get_ident() else "another thread"
            raise RunError(
                f"a denoising run of this policy is going on in {whose}; give each thread a policy of its own: "
                "copy.deepcopy(policy)"
            )
        self.slots = [Slot() for _ in self.names]
        self.kept = {}
        self.context, self._names = None, {}
        self.orders = self.orders_ahead
        self.thread = threading.get_ident()

    def end(self) -> None:
        """Leave and empty the cache."""
        self.thread = None
        self.slots = []
        self.kept = {}
        self._entered.release()

    def enter_context(self, name: str | None) -> None:
        """The evaluations that follow are of this context; None leaves it."""
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
        """Warn once that a block was evaluated where no run is going on; it is then computed as without `bac`."""
        if not self._warned and not torch.is_grad_enabled():
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


class Gate(Interceptor):
    """Open while the denoiser is evaluated, for hosts that call its blocks at other times too (a prefill).

    Args:
        applies: Which calls are evaluations; `None` means all.
    """

    def __init__(self, applies: Applies | None = None) -> None:
        self.applies = applies
        self.is_open = False

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.is_open = self.applies is None or self.applies(inputs, options)
        try:
            return self.original(*inputs, **options)
        finally:
            self.is_open = False


class NamedContexts(Interceptor):
    """Stands in for the method by which a host names the context it evaluates: ``with model.cache_context("cond")``."""

    def __init__(self, run: DenoisingRun) -> None:
        self.run = run

    def __call__(self, *inputs: Any, **options: Any) -> AbstractContextManager[Any]:
        return self._within(*inputs, **options)

    @contextmanager
    def _within(self, name: str) -> Iterator[Any]:
        with self.original(name) as value:
            self.run.enter_context(name)
            try:
                yield value
            finally:
                self.run.enter_context(None)


class CachedBlock(Interceptor):
    """Computes and stores a block's output at its update steps; returns the stored one at all others.

    Args:
        run: The run it takes part in.
        index: Its place in `run.names`.
        updates: Whether it updates, by denoising step, `[K]`.
        in_place: The host writes into what it is given, so it is given copies.
        gate: While it is closed, calls are computed and not counted.
        applies: Which calls are the block's; `None` means all.
        fallback: `updates` of a run that is ordered to fall back, `[K]`; None: the same.
        feeds: Name of the block that this one computes the input of; None if it is one by itself.
    """

    def __init__(
        self,
        run: DenoisingRun,
        index: int,
        updates: Sequence[bool],
        *,
        in_place: bool = False,
        gate: Gate | None = None,
        applies: Applies | None = None,
        fallback: Sequence[bool] | None = None,
        feeds: str | None = None,
    ) -> None:
        self.run = run
        self.index = index
        self.updates = tuple(map(bool, updates))
        self.fallback = self.updates if fallback is None else tuple(map(bool, fallback))
        self.feeds = feeds
        self.in_place = in_place
        self.gate = gate
        self.applies = applies

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if self.applies is not None and not self.applies(inputs, options):
            return self.original(*inputs, **options)
        if self.gate is not None and not self.gate.is_open:
            return self.original(*inputs, **options)
        if self.run.thread is None:
            self.run.note_outside(self.index)
            return self.original(*inputs, **options)
        slot, step, context = self.run.locate(self.index, inputs, options)
        probe = self.run.orders.probe
        if probe is not None and (self.feeds or self.run.names[self.index], step) in probe.cells:
            return self._probe(probe, slot, step, context, inputs, options)
        return self._evaluate(slot, step, context, inputs, options)

    def _probe(
        self, probe: Prober, slot: Slot, step: int, context: int, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Compute as well, and return what the run would have gone on with."""
        with torch.no_grad():
            computed = self.original(*inputs, **options)
        if self.feeds is not None:  # nothing but the block that it feeds sees this, and what that computes is dropped
            return computed
        returned = self._evaluate(slot, step, context, inputs, options)
        with torch.no_grad():
            probe.compare(self.run.names[self.index], step, returned, computed)
        return returned

    def _is_due(self, step: int) -> bool:
        return (self.fallback if self.run.orders.fallback else self.updates)[step]

    def _evaluate(self, slot: Slot, step: int, context: int, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not self._is_due(step):
            return map_tensors(self._usable, slot.features[context])
        output = self.original(*inputs, **options)
        slot.features[context] = map_tensors(self._kept, output)
        return output

    def _kept(self, output: Tensor) -> Tensor:
        return output.detach().clone() if self.in_place else output.detach()

    def _usable(self, feature: Tensor) -> Tensor:
        foreign = feature.is_inference() and not torch.is_inference_mode_enabled()
        return feature.clone() if self.in_place or foreign else feature


class RunScope(Interceptor):
    """Makes one call of a policy's sampler one denoising run."""

    def __init__(self, run: DenoisingRun, denoiser: nn.Module) -> None:
        self.run = run
        self.denoiser = denoiser

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if self.denoiser.training:
            raise RunError(
                "the policy is in training mode, where dropout differs from step to step; call policy.eval()"
            )
        self.run.begin()
        try:
            output = self._uncompiled()(*inputs, **options)
            self.run.check_complete()
            return output
        finally:
            self.run.end()

    def _uncompiled(self) -> Callable[..., Any]:
        """The sampler, left alone by a caller that is compiled: compiled code goes past what stands in for a block."""
        if "torch._dynamo" not in sys.modules:
            return self.original
        return cast(Callable[..., Any], torch.compiler.disable(self.original))  # type: ignore[no-untyped-call]


def _signature(inputs: tuple[Any, ...], options: dict[str, Any]) -> Signature | None:
    for value in (*inputs, *options.values()):
        if isinstance(value, Tensor):
            return value.shape, value.dtype, value.device
    return None
