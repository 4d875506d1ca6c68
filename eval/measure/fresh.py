"""Latency by wall clock in a process of its own: every sample counts, also those in which the machine was busy."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

WARM_UP = 3


def fresh_latency(make: Callable[[], Callable[[], Any]], *, rounds: int) -> dict[str, float]:
    """Time calls in a fresh Python process, where nothing was loaded or measured before.

    Args:
        make: Makes the call that is timed. It is pickled, and run in that process.
        rounds: Number of calls to time, after `WARM_UP` others.

    Returns:
        ``p50_ms`` and ``p95_ms``.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seconds = process.submit(_timed, make, rounds).result()
    return {name: 1e3 * float(np.percentile(seconds, q)) for name, q in (("p50_ms", 50), ("p95_ms", 95))}


def _timed(make: Callable[[], Callable[[], Any]], rounds: int) -> list[float]:
    torch.set_num_threads(1)
    call = make()
    seconds = []
    for _ in range(WARM_UP + rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]
