"""MetaWorld's 50 manipulation tasks (Sawyer arm, MuJoCo) with state observations and their scripted experts.

MetaWorld's 39 numbers are the hand and the objects now (18), the same one control step ago (18), and the goal (3).
``agent_pos`` has the first 4: the hand's position [m] and the gripper's opening in [0, 1]. ``environment_state`` has
the other 35.

``reset(seed=s)`` gives the same initial state as LeRobot's own MetaWorld environment for that seed.
"""

import json
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as SIMULATORS
from metaworld.policies import ENV_POLICY_MAP as EXPERTS

from envs.offscreen import SceneCamera
from envs.registry import suggest
from envs.spaces import Observation, checked_action, observation_space

AGENT_SIZE, WORLD_SIZE = 4, 35
LONGEST_EPISODE = 500  # MetaWorld refuses to step further
INSTRUCTIONS = "envs/metaworld_config.json"
LEROBOT_CAMERA_POSITION = (0.75, 0.075, 0.7)  # position of corner2 [m]


@cache
def lerobot_instructions() -> dict[str, str]:
    """LeRobot's sentence for every task, read from its file: importing its environment takes seconds.

    Raises:
        RuntimeError: LeRobot is not installed.
    """
    lerobot = find_spec("lerobot")
    if lerobot is None or lerobot.origin is None:
        raise RuntimeError(
            "metaworld instruction: LeRobot has the sentences, and is not installed: pip install lerobot"
        )
    sentences: dict[str, str] = json.loads((Path(lerobot.origin).parent / INSTRUCTIONS).read_text())[
        "TASK_DESCRIPTIONS"
    ]
    return sentences


class MetaWorldEnv(gym.Env[Observation, np.ndarray]):
    """One MetaWorld task with observable goal. Every reset has a new initial state; an episode ends on success.

    Actions are hand displacement and gripper effort, `[4]` in [-1, 1], clipped. The reward is MetaWorld's, in [0, 10].

    Args:
        task: MetaWorld's and LeRobot's name, such as ``"assembly-v3"``.
        max_episode_steps: Control steps until truncation, at most 500, LeRobot's value. The default is about three
            times as long as the experts need in the longer tasks.
        width: Width of rendered frames [pixels].
        height: Height of rendered frames [pixels].
        camera: A camera of the scene; ``"corner2"`` is placed and turned upright as in LeRobot.

    Raises:
        ValueError: The task or camera does not exist, or `max_episode_steps` is outside 1..500.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}
    render_mode = "rgb_array"
    family = "metaworld"

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
        self.observation_space = observation_space(AGENT_SIZE, WORLD_SIZE)
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._simulator = SIMULATORS[f"{task}-goal-observable"](seed=0)
        self._simulator._freeze_rand_vec = False  # a new initial state every reset ...
        self._simulator.seeded_rand_vec = True  # ... drawn from the environment's generator
        self._expert = EXPERTS[task]()
        self._raw_observation = np.zeros(AGENT_SIZE + WORLD_SIZE)
        self._succeeded = False
        self._simulator.model.camera("corner2").pos = LEROBOT_CAMERA_POSITION
        self._camera = SceneCamera(self._simulator.model, camera, height, width, env=self.family)
        self.control_hz = 1.0 / self._simulator.dt

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; without a seed, the next one of the current generator."""
        super().reset(seed=seed)
        self._simulator.np_random = self.np_random
        self._raw_observation, _ = self._simulator.reset()
        self._succeeded = False
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one control step.

        Raises:
            ValueError: The action has another shape, or is not finite.
        """
        action = np.clip(checked_action(action, self.action_space), -1.0, 1.0)
        self._raw_observation, reward, _, _, info = self._simulator.step(action)
        success = bool(info["success"])
        self._succeeded |= success
        return self._observation(), float(reward), success, False, {"is_success": success}

    @property
    def instruction(self) -> str:
        """The task in words, as LeRobot's own MetaWorld environment tells it to a policy."""
        return lerobot_instructions()[self.task]

    def score(self) -> float:
        """1.0 if the episode has succeeded, else 0.0."""
        return float(self._succeeded)

    def expert_action(self) -> np.ndarray:
        """Action of MetaWorld's scripted expert in the current state, `[4]` float32, clipped to [-1, 1]."""
        with warnings.catch_warnings():  # the experts exceed the range on purpose, and warn about it
            warnings.filterwarnings("ignore", message="Constant\\(s\\) may be too high")
            action = self._expert.get_action(self._raw_observation)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def render(self) -> np.ndarray:
        """Draw the scene, `[height, width, 3]` uint8; this takes about 25 ms at 240 x 240 in software.

        Raises:
            RuntimeError: There is no OpenGL here.
        """
        picture = self._camera.picture(self._simulator.data)
        return np.ascontiguousarray(picture[::-1, ::-1]) if self._camera.name == "corner2" else picture

    picture = render

    def close(self) -> None:
        """Free the renderer."""
        self._camera.close()

    def _observation(self) -> Observation:
        observation = self._raw_observation.astype(np.float32)
        return {"agent_pos": observation[:AGENT_SIZE], "environment_state": observation[AGENT_SIZE:]}
