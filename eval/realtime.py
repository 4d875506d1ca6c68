"""Real time: the world does not wait for the policy.

::

    control steps  0 1 2 3 4 5 6 7 8 9 ...
    policy         |observe .. think |     observe .. think |
    robot          h h h h h a a a a a a a a h h h h h a a ...     h hold, a action of the chunk

While a chunk is computed the robot holds, and the world goes on; the chunk then starts from where the robot was when
it was observed. A chunk that takes longer than its actions last leaves the robot holding most of the time.
"""

from dataclasses import dataclass, field
from math import ceil
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import bac
from eval.camera import Camera
from eval.cells import Cell, running
from eval.rollout import Hold, Slot, predict_chunks


def think_steps(latency_s: float, control_hz: float) -> int:
    """Control steps that pass while a chunk is computed: a step that has begun is a step that is held.

    Args:
        latency_s: Time from observation to chunk [s].
        control_hz: Control steps per second the world demands [Hz].
    """
    return ceil(round(latency_s * control_hz, 9))


def hold_of(env: str) -> Hold:
    """What the robot does while it waits, by name of the environment.

    Raises:
        ValueError: Nobody said what holding means in this environment.
    """
    if env not in _HOLDS:
        raise ValueError(f"env {env!r}: no hold action is known; add one to eval.realtime._HOLDS ({', '.join(_HOLDS)})")
    return _HOLDS[env]


def _stay_in_place(last_action: np.ndarray | None, observation: dict[str, np.ndarray]) -> np.ndarray:
    """MetaWorld's actions are displacements: none, with the gripper as it was."""
    hold = np.zeros(4, np.float32)
    if last_action is not None:
        hold[3] = last_action[3]
    return hold


def _keep_target(last_action: np.ndarray | None, observation: dict[str, np.ndarray]) -> np.ndarray:
    """Push-T's actions are target positions: the last one, at first where the effector is."""
    return observation["agent_pos"] if last_action is None else last_action


_HOLDS: dict[str, Hold] = {"metaworld": _stay_in_place, "pusht": _keep_target}


@dataclass
class Clip:
    """One filmed episode.

    Attributes:
        title: The method.
        latency_s: Time to a chunk [s].
        frames: Pictures, `[H, W, 3]` uint8 each, evenly spaced in time.
        thinking: For each frame, whether the policy was thinking.
        frame_hz: Frames per second of world time [Hz].
        success: Whether the task was solved.
        duration_s: World time until success or the time limit [s].
    """

    title: str
    latency_s: float
    frame_hz: float
    frames: list[np.ndarray] = field(default_factory=list)
    thinking: list[bool] = field(default_factory=list)
    success: bool = False
    duration_s: float = 0.0


def film(
    loaded: Any, env: gym.Env, env_name: str, cell: Cell, schedule: bac.Schedule | None, *, seed: int, latency_s: float
) -> Clip:
    """Play one episode in real time and film it, at most 20 frames per second of world time.

    Args:
        loaded: Policy with its processors.
        env: The world.
        env_name: Its name, for what holding means.
        cell: How the policy is run.
        schedule: The cell's schedule; None if dense.
        seed: Of the world and the noise.
        latency_s: How long a chunk takes [s], as measured at batch 1.
    """
    control_hz = float(env.unwrapped.control_hz)
    stride = max(1, round(control_hz / 20))
    clip = Clip(cell.name, latency_s, control_hz / stride)
    camera = Camera(env, env_name)
    hold, waiting = hold_of(env_name), think_steps(latency_s, control_hz)

    def shoot(thinking: bool) -> None:
        clip.frames.append(camera.picture(slot.newest))
        clip.thinking.append(thinking)

    def on_step(thinking: bool) -> None:
        if slot.num_control_steps % stride == 0:
            shoot(thinking)

    slot = Slot(env, loaded.policy.config.n_obs_steps, on_step)
    slot.start(seed)
    loaded.policy.reset()
    shoot(True)
    with running(loaded.policy, cell, schedule), torch.inference_mode():
        while not slot.done:
            (chunk,) = predict_chunks(loaded, [slot])
            slot.wait(waiting, hold)
            slot.execute(chunk)
    result = slot.result()
    shoot(False)
    clip.success, clip.duration_s = result.success, result.num_control_steps / control_hz
    return clip
