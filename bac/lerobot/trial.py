"""Tries on one observation whether replay gives the same actions as the policy, and whether it is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from bac.plan.bounds import tolerance_of
from bac.plan.randomness import RandomState
from bac.plan.returned import distance, tensors_in

_ROUNDS = 3  # interleaved timings of either way
_SLOW_S = 1.0  # one round has to do for a policy as slow as that
_GAIN = 0.95  # a replay must take less than this share of the time: it costs memory

Call = Callable[[], Any]


@dataclass(frozen=True)
class Trial:
    """Two ways to make one chunk, on the same draws.

    Attributes:
        untouched_s: Latency of the untouched policy, median [s].
        wrapped_s: Latency as it is wrapped, median [s].
        error: Largest difference between their actions, relative to the largest one; 0 if they are equal.
        output: What the untouched policy made.
        after: State of the generators after that.
    """

    untouched_s: float
    wrapped_s: float
    error: float = 0.0
    output: Any = None
    after: RandomState | None = None

    @property
    def is_same(self) -> bool:
        """Whether both made the same actions: bit for bit on a CPU, within rounding on a GPU."""
        return self.error <= _allowed(self.output)

    @property
    def is_faster(self) -> bool:
        """Whether being wrapped pays on this device."""
        return self.wrapped_s < _GAIN * self.untouched_s

    @classmethod
    def by_turns(cls, untouched: Call, wrapped: Call, before: RandomState, leaves: Sequence[Any]) -> Trial:
        """Run both by turns.

        Args:
            untouched: Makes a chunk with the untouched policy.
            wrapped: Makes it with the wrapped one.
            before: State of the generators that every run begins with.
            leaves: The arguments of the sampler, flattened.
        """
        output, took = _timed(untouched, before)
        after, error = RandomState(leaves), 0.0
        latencies: tuple[list[float], list[float]] = [took], []
        for _ in range(_rounds(took)):
            replayed, seconds = _timed(wrapped, before)
            error = max(error, distance(output, replayed))
            latencies[1].append(seconds)
            latencies[0].append(_timed(untouched, before)[1])
        untouched_s, wrapped_s = map(median, latencies)
        return cls(untouched_s, wrapped_s, error, output, after)


def latency(call: Call, before: RandomState) -> float:
    """Median latency of a few calls [s]."""
    first = _timed(call, before)[1]
    return median([first, *(_timed(call, before)[1] for _ in range(_rounds(first)))])


def _rounds(latency_s: float) -> int:
    return _ROUNDS if latency_s < _SLOW_S else 1


def _timed(call: Call, before: RandomState) -> tuple[Any, float]:
    before.restore()
    started = time.perf_counter()
    output = call()
    for tensor in tensors_in(output):
        if tensor.is_cuda:
            torch.cuda.synchronize(tensor.device)
    return output, time.perf_counter() - started


def _allowed(output: Any) -> float:
    """Kernels of a GPU need not give equal bits; those of a CPU do."""
    made = (tensor for tensor in tensors_in(output) if tensor.is_cuda and tensor.is_floating_point())
    return max(map(tolerance_of, made), default=0.0)
