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

    Attributes:
        drawing: False leaves the pictures black. Only a recorder that does not keep them should set it.
    """

    def __init__(self, env: gym.Env[Any, Any], size: int, *, wrist: bool = False) -> None:
        super().__init__(env)
        self.drawing = True
        world = env.unwrapped
        self._draw = {"pixels": world.picture, **({"pixels_wrist": world.wrist_picture} if wrist else {})}
        drawn = dict.fromkeys(self._draw, spaces.Box(0, 255, (size, size, 3), np.uint8))
        self._black = {name: np.zeros(space.shape, np.uint8) for name, space in drawn.items()}
        self.observation_space = spaces.Dict({**env.observation_space.spaces, **drawn})

    def observation(self, observation: Observation) -> Observation:
        """The observation with pictures of it."""
        pictures = {name: draw() for name, draw in self._draw.items()} if self.drawing else self._black
        return {**observation, **pictures}
