"""The loop that times action chunks. Every comparison of latencies takes its samples from here.

A machine's speed drifts, so calls are compared within the same rounds. Every sample has the wall-clock time and the CPU
time of the process. Their difference shows whether a slow call computed long or waited for a busy core.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, TypeVar

import torch
from tqdm import tqdm

WARM_UP = 3  # untimed calls before the samples, in which a replay records and checks its plan
Call = Callable[[], object]
Key = TypeVar("Key")


class Sample(NamedTuple):
    """Time of one call.

    Attributes:
        wall_s: Wall-clock time [s].
        cpu_s: CPU time of the process [s].
    """

    wall_s: float
    cpu_s: float


def timed(call: Call, count: int, *, warm_up: int = WARM_UP) -> list[Sample]:
    """Time a call `count` times, after `warm_up` untimed calls. A sample includes the GPU's work."""
    with quiet():
        for _ in range(warm_up):
            call()
        return [_time(call) for _ in range(count)]


def interleaved(
    calls: Mapping[Key, Call], rounds: int, *, warm_up: int = WARM_UP, progress: bool = False
) -> dict[Key, list[Sample]]:
    """Time calls that do not exclude each other: every round makes each of them once.

    Args:
        calls: Calls by name.
        rounds: Samples of each.
        warm_up: Untimed calls of each beforehand.
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
    ways: Mapping[Key, Callable[[], AbstractContextManager[Call]]],
    rounds: int,
    *,
    turns: int = 2,
    progress: bool = False,
) -> dict[Key, list[Sample]]:
    """Time ways that exclude each other because they wrap one policy: they take turns of several calls.

    Args:
        ways: By name, a context that yields the call to time.
        rounds: Samples of each way.
        turns: Turns of each way. A replay records its plan again in each turn.
        progress: Show a progress bar.
    """
    samples: dict[Key, list[Sample]] = {name: [] for name in ways}
    with _uncollected():  # once, not in every turn: beside LeRobot's imports a collection takes a second
        for name, way in tqdm(turns * list(ways.items()), desc="latency", unit="turn", disable=not progress):
            with way() as call:
                samples[name] += timed(call, -(-rounds // turns))
    return {name: taken[:rounds] for name, taken in samples.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Within the context, switch off gradients and garbage collection."""
    with _uncollected(), torch.inference_mode():
        yield


@contextmanager
def _uncollected() -> Iterator[None]:
    """Within the context, switch off garbage collection; nothing changes where it is off already."""
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def _time(call: Call) -> Sample:
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.synchronize()  # what an earlier call left behind is not this one's
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)
