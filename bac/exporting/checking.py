"""Compares a written file with the policy, chunk by chunk, on other observations and other noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.adapters.host import Host
from bac.errors import RunError
from bac.exported import ExportedPolicy
from bac.exporting.recorded import interpreting
from bac.plan.randomness import other_numbers
from bac.plan.signature import flatten, replace_leaves

NUM_CHECKS = 3


def other_observations(batch: Mapping[str, Any], count: int = NUM_CHECKS) -> list[dict[str, Any]]:
    """Observations of the same shapes, for where no held-out ones are given: noise is added to every tensor."""
    return [_other(batch, seed) for seed in range(count)]


def _other(batch: Mapping[str, Any], seed: int) -> dict[str, Any]:
    numbers = iter(other_numbers(flatten(batch)[0], seed))
    return dict(replace_leaves(batch, lambda _: next(numbers)))


def chunks_of(host: Host, batches: Sequence[Mapping[str, Any]], seed: int) -> list[Tensor]:
    """The policy's own chunks, interpreted; a replay equals them bit for bit. Chunk i is of noise from `seed` + i."""
    with interpreting(host.policy):
        return [host.predict_seeded(batch, seed + index) for index, batch in enumerate(batches)]


def error_of(
    policy: ExportedPolicy, batches: Sequence[Mapping[str, Any]], wanted: Sequence[Tensor], seed: int
) -> float:
    """The largest difference between exported and own chunks, relative to the largest action of all.

    Args:
        policy: The export, for normalised observations.
        batches: Observations, normalised.
        wanted: The policy's chunks of these, from `chunks_of` with the same `seed`.
    """
    largest = max(float(chunk.abs().max()) for chunk in wanted)
    worst = 0.0
    for index, (batch, chunk) in enumerate(zip(batches, wanted, strict=True)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + index)
            noise = policy.draw()
        found = np.asarray(policy.predict_action_chunk(batch, noise))
        difference = np.abs(found - chunk.detach().float().cpu().numpy()).max()
        worst = max(worst, float(difference) / largest) if np.isfinite(difference) else float("inf")
    return worst


def check_error(name: str, error: float, bound: float) -> None:
    """Refuse a file that makes other actions.

    Raises:
        RunError: The error is above `bound`.
    """
    if not error <= bound:
        raise RunError(
            f"{name}: its actions differ from the policy's by {error:.1e} of the largest, where {bound:.0e} is "
            "allowed; nothing was written. Take another format, or report the policy's class and this line"
        )
