"""The interceptor of a block under plain reuse: it computes and stores, or returns the stored output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bac.caching.interceptors.nested import map_tensors
from bac.caching.interceptors.patch import Interceptor
from bac.caching.interceptors.run import DenoisingRun, Prober, Slot
from bac.caching.interceptors.scope import Applies, Gate


class CachedBlock(Interceptor):
    """Computes and stores a block's output at its update steps; returns the stored one at all others.

    Args:
        run: The run that all interceptors share.
        index: Position of the block in `run.names`.
        updates: Whether the block updates, by denoising step, `[K]`.
        in_place: The policy writes into the outputs it receives, so it receives copies.
        gate: While it is closed, calls are computed and not counted.
        applies: Picks the block's calls; `None` picks all.
        fallback: `updates` of a run that is ordered to fall back, `[K]`; None takes `updates`.
        feeds: Name of the block that this feeder computes the input of; None if it is a block itself.
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
        """Compute the block and compare, but return the value that the run would use without a probe."""
        with torch.no_grad():
            computed = self.original(*inputs, **options)
        if self.feeds is not None:  # harmless: only the probed block reads it, and its computed output is dropped
            return computed
        returned = self._evaluate(slot, step, context, inputs, options)
        with torch.no_grad():
            probe.compare(self.run.names[self.index], step, returned, computed)
        return returned

    def _is_due(self, step: int) -> bool:
        return (self.fallback if self.run.orders.fallback else self.updates)[step]

    def _evaluate(self, slot: Slot, step: int, context: int, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        ownership, key = self.run.ownership, (self.index, context)
        if ownership.is_intact(key) and not self._is_due(step):
            reused = map_tensors(self._usable, slot.features[context])
            if ownership.copies:
                ownership.lend(key, reused)
            return reused
        output = self.original(*inputs, **options)
        slot.features[context] = map_tensors(self._kept, output)
        ownership.lend(key, output)
        return output

    @property
    def _copies(self) -> bool:
        return self.in_place or self.run.ownership.copies

    def _kept(self, output: Tensor) -> Tensor:
        return output.detach().clone() if self._copies else output.detach()

    def _usable(self, feature: Tensor) -> Tensor:
        # Outside inference mode, autograd refuses inference tensors; a clone is an ordinary tensor.
        foreign = feature.is_inference() and not torch.is_inference_mode_enabled()
        return feature.clone() if foreign or self._copies else feature
