"""Pictures as a part of the observation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.spaces import Observation


class WithPixels(gym.ObservationWrapper[Observation, np.ndarray, Observation]):
    """Adds ``pixels``, the world's `picture`, `[height, width, 3]` uint8. Drawing may take longer than the simulation.

    Every observation is drawn; only `drawing_every` makes exceptions.

    Args:
        env: A world of `envs`.
        size: Height and width of its pictures [pixels].
        wrist: Add ``pixels_wrist`` too, the world's `wrist_picture`.
    """

    def __init__(self, env: gym.Env[Any, Any], size: int, *, wrist: bool = False) -> None:
        super().__init__(env)
        self._every, self._first, self._step = 1, 0, 0
        world = env.unwrapped
        self._draw = {"pixels": world.picture, **({"pixels_wrist": world.wrist_picture} if wrist else {})}
        drawn = dict.fromkeys(self._draw, spaces.Box(0, 255, (size, size, 3), np.uint8))
        self._black = {name: np.zeros(space.shape, np.uint8) for name, space in drawn.items()}
        self.observation_space = spaces.Dict({**env.observation_space.spaces, **drawn})

    def observation(self, observation: Observation) -> Observation:
        """The observation with pictures of it."""
        wanted = self._step % self._every == self._first
        self._step += 1
        return {**observation, **({name: draw() for name, draw in self._draw.items()} if wanted else self._black)}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode, with a picture of its first state."""
        self._step = 0
        return super().reset(seed=seed, options=options)

    @contextmanager
    def drawing_every(self, steps: int, first: int) -> Iterator[None]:
        """In a block, draw one control step of so many, from step `first` of an episode on; the others are black."""
        self._every, self._first = steps, first
        try:
            yield
        finally:
            self._every, self._first = 1, 0
