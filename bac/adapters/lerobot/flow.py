"""What LeRobot's flow-matching samplers have in common."""

from __future__ import annotations

from typing import Any

from bac.adapters.flow import Flow, place


def openpi(model: Any) -> Flow:
    """The loop of pi0, pi05 and SmolVLA: one method takes sample and time and returns the velocity."""
    step = place(model, "denoise_step", sample="x_t", time="timestep", answers=True)
    return Flow((step,), guidance=(model, "rtc_processor"))


def falling(num_steps: int) -> tuple[float, ...]:
    """From 1 (noise) in equal steps towards 0, as pi0 and its kin count: ``[1, 1 - 1/K, ..., 1/K]``."""
    return tuple(1.0 - step / num_steps for step in range(num_steps))


def rising(num_steps: int) -> tuple[float, ...]:
    """From 0 (noise) in equal steps towards 1: ``[0, 1/K, ..., 1 - 1/K]``."""
    return tuple(step / num_steps for step in range(num_steps))
