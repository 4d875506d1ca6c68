"""Push-T: push a T-shaped block onto a goal with a round effector. gym-pusht is unchanged; demonstrations are added.

The 206 human demonstrations (Chi et al., RSS 2023) store the block's pose, but gym-pusht observes the block's corners.
gym-pusht's own keypoint code computes the corners of both, so training and live observations agree exactly.
"""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

with warnings.catch_warnings():  # pygame imports pkg_resources, which is deprecated
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import pymunk
    from gym_pusht.envs.pusht import PushTEnv as Simulator

from envs.replay_buffer import ReplayBuffer, open_group
from envs.spaces import Observation, checked_action, observation_space


class PushTEnv(gym.Env[Observation, np.ndarray]):
    """gym-pusht's `environment_state_agent_pos` observations, in pixels; ends when coverage exceeds 0.95.

    Actions are target positions of the effector, `[2]` in [0, 512] pixels. The reward of a control step is
    min(coverage / 0.95, 1).

    Args:
        task: Only ``"pusht"`` exists.
        max_episode_steps: Control steps until truncation; Diffusion Policy evaluates with 300.
        width: Width of rendered frames [pixels].
        height: Height of rendered frames [pixels].

    Raises:
        ValueError: The task is another one, or `max_episode_steps` is below 1.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"
    family = "pusht"
    instruction = "Push the T-shaped block onto its outline"

    def __init__(
        self, task: str = "pusht", *, max_episode_steps: int = 300, width: int = 240, height: int = 240
    ) -> None:
        if task != "pusht":
            raise ValueError(f"pusht task {task!r}: no such task. Known: pusht.")
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps: must be at least 1, got {max_episode_steps}")
        self.task = task
        self.max_episode_steps = max_episode_steps
        size = {"observation_width": width, "observation_height": height}
        shown = {"visualization_width": width, "visualization_height": height}
        self._simulator = Simulator("environment_state_agent_pos", **size, **shown)
        self.observation_space = observation_space(2, 16)
        self.action_space = self._simulator.action_space
        self.control_hz = float(self._simulator.control_hz)
        self._score = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; without a seed, the next one of the current generator."""
        super().reset(seed=seed)
        observation, _ = self._simulator.reset(seed=seed)
        self._score = 0.0
        return _as_float32(observation), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one control step. The info also has ``coverage``, the covered part of the goal in [0, 1].

        Raises:
            ValueError: The action has another shape, or is not finite.
        """
        observation, reward, _, _, info = self._simulator.step(checked_action(action, self.action_space))
        self._score = max(self._score, float(reward))
        success = bool(info["is_success"])
        details = {"is_success": success, "coverage": float(info["coverage"])}
        return _as_float32(observation), float(reward), success, False, details

    def score(self) -> float:
        """The best min(coverage / 0.95, 1) of the episode so far: the Push-T score of Diffusion Policy."""
        return self._score

    def render(self) -> np.ndarray:
        """Draw the table, with the last target as a red cross, `[height, width, 3]` uint8; needs no OpenGL.

        gym-pusht cannot draw the cross in frames of less than 96 pixels; `picture` has no such limit.
        """
        return self._simulator.render()

    def picture(self) -> np.ndarray:
        """What gym-pusht's image policies see: the table without the cross, `[height, width, 3]` uint8."""
        return self._simulator._render(visualize=False)


def keypoints(block_poses: np.ndarray) -> np.ndarray:
    """Corners of the block's two bars, as gym-pusht observes them.

    Args:
        block_poses: x, y [pixels] and angle [rad], `[n, 3]`.

    Returns:
        x, y of the eight corners [pixels], `[n, 16]` float32.
    """
    block, shapes = Simulator.add_tee(pymunk.Space(), (0, 0), 0)
    corners = np.empty((len(block_poses), 16), np.float32)
    for row, pose in enumerate(block_poses):
        place(block, pose)
        corners[row] = Simulator.get_keypoints(shapes).ravel()
    return corners


def place(block: pymunk.Body, pose: np.ndarray) -> None:
    """Put the block at x, y [pixels] and angle [rad]. The angle comes first, since turning moves the block's origin."""
    x, y, angle = map(float, pose)
    block.angle = angle
    block.position = (x, y)


def pictures(states: np.ndarray, size: int) -> np.ndarray:
    """What `PushTEnv.picture` shows of recorded states, `[n, size, size, 3]` uint8.

    Args:
        states: x, y of the effector [pixels], and x, y [pixels] and angle [rad] of the block, `[n, 5]`.
        size: Height and width of a picture [pixels].
    """
    env = PushTEnv(width=size, height=size)
    env.reset(seed=0)
    simulator = env._simulator
    drawn = np.empty((len(states), size, size, 3), np.uint8)
    for row, state in enumerate(states):
        simulator.agent.position = tuple(map(float, state[:2]))
        place(simulator.block, state[2:])
        for body in (simulator.agent, simulator.block):
            simulator.space.reindex_shapes_for_body(body)  # or they would be drawn where they were
        drawn[row] = env.picture()
    return drawn


def load_human_demonstrations(path: str | Path, *, pixels: int | None = None) -> ReplayBuffer:
    """Read the human demonstrations and give them the observations of `PushTEnv`.

    Args:
        path: The public zarr folder (pusht_cchi_v7_replay.zarr), or an npz of its ``state``, ``action`` and
            ``episode_ends``.
        pixels: Height and width of pictures to draw, too [pixels]; None for none.

    Returns:
        `state` `[n, 2]`, `environment_state` `[n, 16]` and `action` `[n, 2]` [pixels], float32; with `pixels`
        `[n, height, width, 3]` uint8 if asked for.

    Raises:
        FileNotFoundError: There is nothing to read at `path`.
        ValueError: An array is missing, or has another shape.
    """
    names = {"data/state": 5, "data/action": 2}
    arrays = _read(path, [*names, "meta/episode_ends"])
    for name, size in names.items():
        if arrays[name].ndim != 2 or arrays[name].shape[1] != size:
            raise ValueError(f"{path}: {name} must be [n, {size}], got {list(arrays[name].shape)}")
    state = arrays["data/state"]
    recorded = {
        "state": state[:, :2].astype(np.float32),
        "environment_state": keypoints(state[:, 2:]),
        "action": arrays["data/action"].astype(np.float32),
    }
    if pixels is not None:
        recorded["pixels"] = pictures(state, pixels)
    control_hz = float(Simulator.metadata["render_fps"])
    return ReplayBuffer(
        recorded, arrays["meta/episode_ends"], {"env": "pusht", "task": "pusht", "control_hz": control_hz}
    )


def _read(path: str | Path, names: list[str]) -> dict[str, np.ndarray]:
    if Path(path).suffix == ".npz":
        with np.load(path) as archive:
            arrays = {name: archive[key] for name in names if (key := name.split("/")[-1]) in archive}
    else:
        group = open_group(path)
        arrays = {name: group[name][:] for name in names if name in group}
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{path}: the Push-T demonstrations have {', '.join(names)}; this lacks {missing}")
    return arrays


def _as_float32(observation: Observation) -> Observation:
    return {name: value.astype(np.float32) for name, value in observation.items()}
