"""Seconds from an observation batch to its action chunk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from bac.adapters import find_host

WARM_UP = 3  # chunks before the clock counts: a replay records and checks its plan in them


def chunk_seconds(policy: object, batch: Mapping[str, Any], count: int) -> list[float]:
    """Time chunks of a policy as it is, wrapped or not, after a few that warm up.

    Args:
        policy: As for `bac.wrap`.
        batch: One observation batch, preprocessed.
        count: Chunks timed.
    """
    predict = find_host(policy).predict  # found once: looking for it would count
    return [_timed(predict, dict(batch)) for _ in range(WARM_UP + count)][WARM_UP:]


def _timed(predict: Any, batch: dict[str, Any]) -> float:
    with torch.inference_mode():
        started = time.perf_counter()
        predict(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started
