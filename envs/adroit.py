"""AdroitHand: a hand of 24 joints opens a door, hammers a nail, moves a ball and turns a pen (gymnasium-robotics).

``agent_pos`` has the joint positions of the arm and the hand that the simulator observes: all but the door's ``ARTz``,
which slides the arm. ``environment_state`` has the rest of its observation, such as positions of the palm, the object
and the goal, and velocities of the hammer or the pen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium_robotics.envs.adroit_hand.adroit_door import AdroitHandDoorEnv
from gymnasium_robotics.envs.adroit_hand.adroit_hammer import AdroitHandHammerEnv
from gymnasium_robotics.envs.adroit_hand.adroit_pen import AdroitHandPenEnv
from gymnasium_robotics.envs.adroit_hand.adroit_relocate import AdroitHandRelocateEnv

from envs.dapg_expert import DapgExpert
from envs.offscreen import SceneCamera
from envs.registry import suggest
from envs.spaces import Observation, checked_action, observation_space


@dataclass(frozen=True)
class AdroitTask:
    """One task: what to do in words, its simulator, and the sizes of the two parts of its observation."""

    instruction: str
    simulator: Callable[[], MujocoEnv]
    agent_size: int
    world_size: int


TASKS = {
    "adroit-door": AdroitTask("Unlatch the door and open it", AdroitHandDoorEnv, 27, 12),
    "adroit-hammer": AdroitTask("Pick up the hammer and drive the nail into the board", AdroitHandHammerEnv, 26, 20),
    "adroit-relocate": AdroitTask("Pick up the ball and move it to the goal", AdroitHandRelocateEnv, 30, 9),
    "adroit-pen": AdroitTask("Turn the pen to the orientation of the goal", AdroitHandPenEnv, 24, 21),
}


@cache
def starting_action(agent_size: int) -> np.ndarray:
    """The action that keeps the pose in which every episode of a task starts, `[Da]` float32.

    Args:
        agent_size: The task's number of joint positions in ``agent_pos``, which no other task has.
    """
    (task,) = (task for task in TASKS.values() if task.agent_size == agent_size)
    simulator = task.simulator()
    simulator.reset(seed=0)
    joints = simulator.model.jnt_qposadr[simulator.model.actuator_trnid[:, 0]]
    return ((simulator.data.qpos[joints] - simulator.act_mean) / simulator.act_rng).astype(np.float32)


class AdroitEnv(gym.Env[Observation, np.ndarray]):
    """One AdroitHand task. Every reset has a new initial state or goal; an episode ends on success.

    Actions are target positions of all actuated joints, `[24]` to `[30]`, with their ranges scaled to [-1, 1], clipped.
    The reward is the simulator's dense one.

    Args:
        task: ``"adroit-door"``, ``"adroit-hammer"``, ``"adroit-relocate"`` or ``"adroit-pen"``.
        max_episode_steps: Control steps until truncation. The default is three to five times as long as experts need.
        width: Width of rendered frames [pixels].
        height: Height of rendered frames [pixels].
        camera: A camera of the scene.
        expert: The expert of the task, for `expert_action`.

    Raises:
        ValueError: The task or camera does not exist, or `max_episode_steps` is below 1.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}
    render_mode = "rgb_array"
    family = "adroit"

    def __init__(
        self,
        task: str,
        *,
        max_episode_steps: int = 200,
        width: int = 240,
        height: int = 240,
        camera: str = "fixed",
        expert: DapgExpert | None = None,
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"adroit task {task!r}: no such task. {suggest(task, TASKS)}")
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps: must be at least 1, got {max_episode_steps}")
        self.task = task
        self.instruction = TASKS[task].instruction
        self.max_episode_steps = max_episode_steps
        self._simulator = TASKS[task].simulator()
        self._agent_size = TASKS[task].agent_size
        self.observation_space = observation_space(self._agent_size, TASKS[task].world_size)
        self.action_space = self._simulator.action_space
        self._expert = expert
        self._raw_observation = np.zeros(self._simulator.observation_space.shape)
        self._succeeded = False
        self._camera = SceneCamera(self._simulator.model, camera, height, width, env=self.family)
        self.control_hz = 1.0 / self._simulator.dt

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; without a seed, the next one of the current generator."""
        super().reset(seed=seed)
        self._raw_observation, _ = self._simulator.reset(seed=seed)
        self._succeeded = False
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one control step.

        Raises:
            ValueError: The action has another shape, or is not finite.
        """
        action = checked_action(action, self.action_space)  # the simulator clips it
        self._raw_observation, reward, _, _, info = self._simulator.step(action)
        success = bool(info["success"])
        self._succeeded |= success
        return self._observation(), float(reward), success, False, {"is_success": success}

    def score(self) -> float:
        """1.0 if the episode has succeeded, else 0.0."""
        return float(self._succeeded)

    def expert_action(self) -> np.ndarray:
        """Action of the expert in the current state, `[Da]` float32, clipped to [-1, 1].

        Raises:
            RuntimeError: The environment was made without an expert.
        """
        if self._expert is None:
            raise RuntimeError(
                f"{self.task}: no expert; pass one: AdroitEnv({self.task!r}, expert=DapgExpert.load(...))"
            )
        return np.clip(self._expert.act(self._raw_observation), -1.0, 1.0).astype(np.float32)

    def render(self) -> np.ndarray:
        """Draw the scene, `[height, width, 3]` uint8.

        Raises:
            RuntimeError: There is no OpenGL here.
        """
        return self._camera.picture(self._simulator.data)

    picture = render

    def close(self) -> None:
        """Free the renderer."""
        self._camera.close()

    def _observation(self) -> Observation:
        observation = self._raw_observation.astype(np.float32)
        return {"agent_pos": observation[: self._agent_size], "environment_state": observation[self._agent_size :]}
