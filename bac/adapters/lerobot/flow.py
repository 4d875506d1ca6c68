"""Noise levels of flow-matching samplers, as fingerprints hold them."""

from __future__ import annotations


def falling(num_steps: int) -> tuple[float, ...]:
    """From 1 (noise) in equal steps towards 0, as pi0 and its kin count: ``[1, 1 - 1/K, ..., 1/K]``."""
    return tuple(1.0 - step / num_steps for step in range(num_steps))


def rising(num_steps: int) -> tuple[float, ...]:
    """From 0 (noise) in equal steps towards 1: ``[0, 1/K, ..., 1 - 1/K]``."""
    return tuple(step / num_steps for step in range(num_steps))
