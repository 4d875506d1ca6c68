"""Copies an observation for the policy's thread."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def snapshot(observation: Any) -> Any:
    """The same observation with memory of its own, so that a chunk is for what was seen when it began.

    A driver may read into one buffer again and again. The policy, in its own thread, would see the later states.

    Args:
        observation: Tensors and arrays, also in dictionaries, lists and tuples. All else is passed on as it is.
    """
    torch = sys.modules.get("torch")  # an exported policy may do without
    if torch is not None and isinstance(observation, torch.Tensor):
        return observation.detach().clone()
    if isinstance(observation, np.ndarray):
        return observation.copy()
    if type(observation) is dict:
        return {key: snapshot(value) for key, value in observation.items()}
    if type(observation) in (list, tuple):
        return type(observation)(map(snapshot, observation))
    return observation
