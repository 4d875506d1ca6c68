"""Push-T: push a T-shaped block onto a goal with a point effector; gym-pusht as it is, plus its demonstrations.

The demonstrations store the block's pose, gym-pusht observes the block's corners. Both go through gym-pusht's own
`get_keypoints`, so a policy sees in training exactly what it will see live.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import pymunk
from gym_pusht.envs.pusht import PushTEnv as Simulator
from gymnasium import spaces


class PushTEnv(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """gym-pusht with `environment_state_agent_pos` observations in pixels; ends when coverage exceeds 0.95.

    Actions are target positions of the effector, `[2]` in [0, 512] pixels. The reward is
    min(coverage / 0.95, 1) at this control step.

    Args:
        max_episode_steps: Control steps until truncation; Diffusion Policy evaluates with 300.
        width: Width of rendered frames [pixels].
        height: Height of rendered frames [pixels].

    Raises:
        ValueError: `max_episode_steps` below 1.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"

    def __init__(self, *, max_episode_steps: int = 300, width: int = 240, height: int = 240) -> None:
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps: must be at least 1, got {max_episode_steps}")
        self.max_episode_steps = max_episode_steps
        self._simulator = Simulator(
            obs_type="environment_state_agent_pos", visualization_width=width, visualization_height=height
        )
        self._score = 0.0
        self.control_hz = float(self._simulator.control_hz)
        self.action_space = self._simulator.action_space
        self.observation_space = spaces.Dict(  # the effector overshoots, corners leave the table at the start
            {
                "agent_pos": spaces.Box(-np.inf, np.inf, (2,), np.float32),
                "environment_state": spaces.Box(-np.inf, np.inf, (16,), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        observation, _ = self._simulator.reset(seed=seed)
        self._score = 0.0
        return _as_float32(observation), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        observation, reward, _, _, info = self._simulator.step(np.asarray(action, np.float64))
        self._score = max(self._score, float(reward))
        success = bool(info["is_success"])
        details = {"is_success": success, "coverage": float(info["coverage"])}
        return _as_float32(observation), float(reward), success, False, details

    def score(self) -> float:
        """The best min(coverage / 0.95, 1) of the episode so far: Diffusion Policy's Push-T score."""
        return self._score

    def render(self) -> np.ndarray:
        return self._simulator.render()


def keypoints(block_poses: np.ndarray) -> np.ndarray:
    """Corners of the block's two bars in gym-pusht's order.

    Args:
        block_poses: x, y [pixels] and angle [rad], `[n, 3]`.

    Returns:
        x, y of eight corners [pixels], `[n, 16]` float32.
    """
    block, shapes = Simulator.add_tee(pymunk.Space(), (0, 0), 0)
    corners = np.empty((len(block_poses), 16), np.float32)
    for row, (x, y, angle) in enumerate(block_poses.tolist()):
        block.angle = angle  # before the position: turning moves the origin, it is not the centre of gravity
        block.position = (x, y)
        corners[row] = Simulator.get_keypoints(shapes).ravel()
    return corners


def _as_float32(observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float32) for name, value in observation.items()}
