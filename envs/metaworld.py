"""MetaWorld's 50 manipulation tasks (Sawyer arm, MuJoCo) with state observations and their scripted experts.

MetaWorld's 39 numbers are the hand and the objects now (18), one control step ago (18), and the goal (3). The
hand's first 4 (position [m] and gripper opening) are the agent's; the other 35 are the world's.
"""

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as SIMULATORS
from metaworld.policies import ENV_POLICY_MAP as EXPERTS

from envs.registry import suggest

AGENT_SIZE = 4
LONGEST_EPISODE = 500  # MetaWorld itself refuses to step further
CAMERA_POSITION = {"corner2": (0.75, 0.075, 0.7)}  # where LeRobot puts this camera


class MetaWorldEnv(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """One MetaWorld task, goal observable, a new initial state every reset; ends on success.

    Actions are hand displacement and gripper effort, `[4]` in [-1, 1]; the reward is MetaWorld's, in [0, 10].

    Args:
        task: LeRobot's and MetaWorld's name, such as ``"assembly-v3"``.
        max_episode_steps: Control steps until truncation, at most 500. The experts need 30 to 140, so the
            default leaves a policy about three times as long.
        width: Width of rendered frames [pixels].
        height: Height of rendered frames [pixels].
        camera: A camera of the scene; ``"corner2"`` is placed and turned upright as LeRobot does.

    Raises:
        ValueError: No such task, or `max_episode_steps` outside 1..500.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}
    render_mode = "rgb_array"

    def __init__(
        self,
        task: str,
        *,
        max_episode_steps: int = 300,
        width: int = 240,
        height: int = 240,
        camera: str = "corner2",
    ) -> None:
        if task not in EXPERTS:
            raise ValueError(f"metaworld task {task!r}: no such task. {suggest(task, EXPERTS)}")
        if not 1 <= max_episode_steps <= LONGEST_EPISODE:
            raise ValueError(f"max_episode_steps: must be in 1..{LONGEST_EPISODE}, got {max_episode_steps}")
        self.task = task
        self.max_episode_steps = max_episode_steps
        self._size = (height, width)
        self._camera = camera
        self._simulator = SIMULATORS[f"{task}-goal-observable"](seed=0)
        self._simulator._freeze_rand_vec = False  # a new initial state every reset ...
        self._simulator.seeded_rand_vec = True  # ... drawn from the simulator's own generator
        self._expert = EXPERTS[task]()
        self._raw_observation = np.zeros(self._simulator.sawyer_observation_space.shape)
        self._succeeded = False
        self._renderer: mujoco.Renderer | None = None
        self.control_hz = 1.0 / self._simulator.dt
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "agent_pos": spaces.Box(-np.inf, np.inf, (AGENT_SIZE,), np.float32),
                "environment_state": spaces.Box(-np.inf, np.inf, (39 - AGENT_SIZE,), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._simulator.seed(seed)
        self._raw_observation, _ = self._simulator.reset()
        self._succeeded = False
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        action = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        self._raw_observation, reward, _, _, info = self._simulator.step(action)
        success = bool(info["success"])
        self._succeeded |= success
        return self._observation(), float(reward), success, False, {"is_success": success}

    def score(self) -> float:
        """Whether the episode succeeded so far: 1.0 or 0.0."""
        return float(self._succeeded)

    def expert_action(self) -> np.ndarray:
        """What MetaWorld's scripted expert does in the present state: `[4]` float32, clipped to [-1, 1]."""
        return np.clip(self._expert.get_action(self._raw_observation), -1.0, 1.0).astype(np.float32)

    def _observation(self) -> dict[str, np.ndarray]:
        observation = self._raw_observation.astype(np.float32)
        return {"agent_pos": observation[:AGENT_SIZE], "environment_state": observation[AGENT_SIZE:]}
