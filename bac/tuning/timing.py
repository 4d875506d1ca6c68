"""The one loop that times action chunks; everything that compares latencies takes its samples from here.

A machine's speed drifts, so ways to make a chunk are compared within the same rounds. Every sample has the wall clock
and the CPU time of the process, which tell a slow call from one whose core somebody else held.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, TypeVar

import torch
from tqdm import tqdm

WARM_UP = 3  # calls before the clock counts: a replay records and checks its plan in them
Call = Callable[[], object]
Key = TypeVar("Key")


class Sample(NamedTuple):
    """Time of one call.

    Attributes:
        wall_s: By the wall clock [s].
        cpu_s: Of the process [s].
    """

    wall_s: float
    cpu_s: float


def timed(call: Call, count: int, *, warm_up: int = WARM_UP) -> list[Sample]:
    """Time a call `count` times, after some calls that warm up; a GPU is waited for."""
    with quiet():
        for _ in range(warm_up):
            call()
        return [_time(call) for _ in range(count)]


def interleaved(
    calls: Mapping[Key, Call], rounds: int, *, warm_up: int = WARM_UP, progress: bool = False
) -> dict[Key, list[Sample]]:
    """Time calls that can stand side by side: every round makes each of them once.

    Args:
        calls: By name.
        rounds: Samples of each.
        warm_up: Calls of each before.
        progress: Show a progress bar.
    """
    samples: dict[Key, list[Sample]] = {name: [] for name in calls}
    with quiet():
        for call in calls.values():
            for _ in range(warm_up):
                call()
        for _ in tqdm(range(rounds), desc="latency", unit="round", disable=not progress):
            for name, call in calls.items():
                samples[name].append(_time(call))
    return samples


def in_turns(
    ways: Mapping[Key, Callable[[], AbstractContextManager[Call]]], rounds: int, *, turns: int = 2
) -> dict[Key, list[Sample]]:
    """Time ways that exclude each other, since they are put on one policy: some calls in a row of each, by turns.

    Args:
        ways: By name, a context that gives a call to be made within it.
        rounds: Samples of each way.
        turns: How often each way has its turn; a replay records its plan anew in each.
    """
    samples: dict[Key, list[Sample]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            with way() as call:
                samples[name] += timed(call, -(-rounds // turns))
    return {name: taken[:rounds] for name, taken in samples.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Without gradients and garbage collection, as it was before afterwards."""
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()


def _time(call: Call) -> Sample:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)
