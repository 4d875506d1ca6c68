"""Pictures as a part of the observation."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.spaces import Observation


class WithPixels(gym.ObservationWrapper[Observation, np.ndarray, Observation]):
    """Adds ``pixels``, the world's `picture`, `[height, width, 3]` uint8. Drawing may take longer than the simulation.

    Args:
        env: A world of `envs`.
        size: Height and width of its pictures [pixels].
        wrist: Add ``pixels_wrist`` too, the world's `wrist_picture`.
    """

    def __init__(self, env: gym.Env[Any, Any], size: int, *, wrist: bool = False) -> None:
        super().__init__(env)
        world = env.unwrapped
        self._draw = {"pixels": world.picture, **({"pixels_wrist": world.wrist_picture} if wrist else {})}
        drawn = dict.fromkeys(self._draw, spaces.Box(0, 255, (size, size, 3), np.uint8))
        self.observation_space = spaces.Dict({**env.observation_space.spaces, **drawn})

    def observation(self, observation: Observation) -> Observation:
        """The observation with pictures of it."""
        return {**observation, **{name: draw() for name, draw in self._draw.items()}}
