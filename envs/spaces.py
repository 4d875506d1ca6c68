"""The observation space that all worlds share, and the check of their actions."""

import numpy as np
from gymnasium import spaces

Observation = dict[str, np.ndarray]


def observation_space(agent_size: int, world_size: int) -> spaces.Dict:
    """Unbounded boxes ``agent_pos`` `[agent_size]` and ``environment_state`` `[world_size]`, float32.

    The boxes are unbounded because simulators leave their nominal ranges: Push-T starts with corners outside its table.
    """
    sizes = {"agent_pos": agent_size, "environment_state": world_size}
    return spaces.Dict({name: spaces.Box(-np.inf, np.inf, (size,), np.float32) for name, size in sizes.items()})


def checked_action(action: np.ndarray, space: spaces.Box) -> np.ndarray:
    """Check an action, and return it in the dtype of its space. MuJoCo would silently reset itself on a NaN.

    Raises:
        ValueError: The action has another shape than the space, or a number that is not finite.
    """
    action = np.asarray(action, space.dtype)
    if action.shape != space.shape:
        raise ValueError(f"action: must have shape {space.shape}, one environment's, got {action.shape}")
    if not np.isfinite(action).all():
        raise ValueError(f"action: must be finite, got {action}")
    return action
