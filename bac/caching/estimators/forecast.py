"""The base of linear forecasts: a weighted sum of the last updates' outputs, with weights known before the run.

A rule turns the times of the last updates and the time of a reuse into weights w_j that sum to one. With stored
differences d_k = F_(k-1) - F_k, the sum over j of w_j F_j becomes F_0 plus one scaled difference per order. A
first-order forecast therefore costs one operation at a reuse and one at an update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator
from bac.errors import ScheduleError


class History(NamedTuple):
    """The last updates of a block.

    Attributes:
        times: Times of the updates, newest first.
        newest: Output of the newest update.
        differences: Each output minus the one before it, newest first.
    """

    times: tuple[float, ...]
    newest: Tensor
    differences: tuple[Tensor, ...]


@dataclass(frozen=True)
class Forecast(Estimator, ABC):
    """Continues the last outputs of a block along a curve.

    Attributes:
        order: Degree of the curve, at least 1. It is lower until enough updates were made; after the first update it
            is 0, plain reuse.
        times: Positions of the denoising steps on the axis of extrapolation, `[K]`, distinct; step indices if empty.
            The timesteps (noise levels) of a solver that spaces them unevenly are the other sensible axis.

    Raises:
        ScheduleError: `order` is below 1, or two steps lie at the same time.
    """

    order: int = 1
    times: tuple[float, ...] = field(default=(), repr=False, hash=False)
    continues_rest = True
    rule: ClassVar[str]  # the name without the order

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or self.order < 1:
            raise ScheduleError(f"order: must be a whole number of at least 1, got {self.order!r}; for 0 take Hold()")
        object.__setattr__(self, "times", tuple(map(float, self.times)))
        if len(set(self.times)) < len(self.times):
            raise ScheduleError(f"times: two denoising steps lie at the same time in {self.times[:5]}; leave times out")

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of updates kept."""

    @abstractmethod
    def weights(self, nodes: tuple[float, ...], time: float) -> tuple[float, ...]:
        """Weights of the outputs at `nodes` (times of the last updates, newest first) in the value at `time`."""

    @property
    def name(self) -> str:
        """Identifier: ``taylor-1``, or ``taylor-1-timestep`` if `times` are given."""
        return f"{self.rule}-{self.order}" + ("-timestep" if self.times else "")

    def time(self, step: int) -> float:
        """Position of a denoising step on the axis of extrapolation."""
        return self.times[step] if self.times else float(step)

    def store(self, state: History | None, at: BlockStep, x: Tensor | None, output: Tensor) -> History:
        """Keep the output, and its difference to the one before."""
        now = self.time(at.step)
        if state is None:
            return History((now,), output, ())
        differences = (output - state.newest, *state.differences)[: self.depth - 1]
        return History((now, *state.times)[: self.depth], output, differences)

    def estimate(self, state: History, at: BlockStep, x: Tensor | None) -> Tensor:
        """Continue the curve to this step."""
        value = state.newest
        factors = _factors(self, state.times, self.time(at.step))
        for difference, factor in zip(state.differences, factors, strict=True):
            value = torch.add(value, difference, alpha=factor)
        return value


@lru_cache(maxsize=100_000)  # every block and every run asks for the same few times
def _factors(forecast: Forecast, nodes: tuple[float, ...], time: float) -> tuple[float, ...]:
    """Factor of each difference: minus the total weight of all older outputs."""
    weights = forecast.weights(nodes, time)
    return tuple(-older for older in accumulate(reversed(weights[1:])))[::-1]


def lagrange(nodes: tuple[float, ...], time: float) -> tuple[float, ...]:
    """Weights of the polynomial through values at `nodes`, at `time`."""
    weights = []
    for place, node in enumerate(nodes):
        others = (*nodes[:place], *nodes[place + 1 :])
        weight = 1.0
        for other in others:
            weight *= (time - other) / (node - other)
        weights.append(weight)
    return tuple(weights)
