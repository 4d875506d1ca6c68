"""What all worlds observe and accept: two float32 vectors in, one checked vector out."""

import numpy as np
from gymnasium import spaces

Observation = dict[str, np.ndarray]


def observation_space(agent_size: int, world_size: int) -> spaces.Dict:
    """Unbounded boxes ``agent_pos`` `[agent_size]` and ``environment_state`` `[world_size]`, float32.

    Unbounded because simulators leave their nominal ranges: Push-T starts with corners outside its table.
    """
    sizes = {"agent_pos": agent_size, "environment_state": world_size}
    return spaces.Dict({name: spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in sizes.items()})


def checked_action(action: np.ndarray, space: spaces.Box) -> np.ndarray:
    """The action in the dtype of its space; MuJoCo given NaN resets itself silently and goes on.

    Raises:
        ValueError: Another shape than the space's, or a number that is not finite.
    """
    action = np.asarray(action, space.dtype)
    if action.shape != space.shape:
        raise ValueError(f"action: must have shape {space.shape}, one environment's, got {action.shape}")
    if not np.isfinite(action).all():
        raise ValueError(f"action: must be finite, got {action}")
    return action
