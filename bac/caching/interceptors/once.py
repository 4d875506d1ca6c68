"""Interceptors for calls that depend on the observation alone: a denoising run computes them once, not at every step.

`Once` returns the first result of a call for the rest of the run, for example the keys and values that cross-attention
takes from the observation. The arithmetic is the same, so the result is bit-equal. `SplitConditioning` splits a linear
layer whose input is part timestep, part observation. That changes the order of a sum, so it is used only where other
roundings are allowed. Both keep their results in the run, so nothing outlives an action chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bac.caching.block import Site
from bac.caching.interceptors.nested import map_tensors
from bac.caching.interceptors.patch import Interceptor
from bac.caching.interceptors.run import DenoisingRun
from bac.caching.interceptors.scope import Gate


class Once(Interceptor):
    """Computes a call at its first evaluation in a run and returns that result at all others.

    Args:
        run: The run that all interceptors share.
        gate: While it is closed, calls are computed and nothing is kept.
    """

    def __init__(self, run: DenoisingRun, gate: Gate | None = None) -> None:
        self.run = run
        self.gate = gate

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if self.run.thread != threading.get_ident() or (self.gate is not None and not self.gate.is_open):
            # Outside the run's evaluations, arguments may come from another observation.
            return self.original(*inputs, **options)
        kept, ownership = self.run.kept, self.run.ownership
        if id(self) not in kept or not ownership.is_intact(id(self)):
            kept[id(self)] = map_tensors(self._own, self.original(*inputs, **options))
        result = map_tensors(Tensor.clone, kept[id(self)]) if ownership.copies else kept[id(self)]
        ownership.lend(id(self), result)
        return result

    def _own(self, result: Tensor) -> Tensor:
        return result.detach().clone() if self.run.ownership.copies else result.detach()


class SplitConditioning(Interceptor):
    """Replaces an activation and a linear layer: it computes the observation's share of the product once.

    Args:
        run: The run that all interceptors share.
        activation: The activation, elementwise.
        linear: The linear layer; its input is ``[timestep's features, observation's features]``.
        num_time: How many of these features are the timestep's.
    """

    def __init__(self, run: DenoisingRun, activation: nn.Module, linear: nn.Linear, num_time: int) -> None:
        self.run = run
        self.activation = activation
        self.linear = linear
        self.num_time = num_time

    def __call__(self, features: Tensor) -> Tensor:
        """Map ``[B, num_time + observation's features]`` to the layer's output."""
        if self.run.thread != threading.get_ident():
            output: Tensor = self.original(features)
            return output
        kept, weight, n = self.run.kept, self.linear.weight, self.num_time
        if id(self) not in kept:
            share = F.linear(self.activation(features[..., n:]), weight[:, n:], self.linear.bias)
            kept[id(self)] = share.detach()
        shared: Tensor = kept[id(self)]
        return F.linear(self.activation(features[..., :n]), weight[:, :n]) + shared


@dataclass(frozen=True)
class Hoist:
    """An interceptor that rounds differently, and the call it replaces.

    Attributes:
        site: The replaced call.
        make: Makes the interceptor for a run.
    """

    site: Site
    make: Callable[[DenoisingRun], Interceptor]
