"""Demonstrations by the expert of a world."""

from collections import defaultdict

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from envs.replay_buffer import ReplayBuffer
from envs.spaces import Observation

NAMES = {"agent_pos": "state"}  # Diffusion Policy's name of the agent's part of an observation
FIRST_SEED = 100_000  # far from evaluation, which counts up from 0
MOST_FAILURES = 10  # per requested episode


def record_expert(
    env: gym.Env[Observation, np.ndarray],
    num_episodes: int,
    *,
    first_seed: int = FIRST_SEED,
    noise: float = 0.0,
    draw_every: int = 1,
    progress: bool = True,
) -> tuple[ReplayBuffer, int]:
    """Record the expert of one task. Only successful episodes are kept, up to the step that succeeds.

    With `noise` the world executes a disturbed action, but the expert's clean action is recorded. So the buffer also
    shows how to recover. The noise injection is DART, Laskey et al. (CoRL 2017).

    Args:
        env: The world of the task; ``env.unwrapped`` has an ``expert_action()``.
        num_episodes: Number of successful episodes to record, at least 1.
        first_seed: Seed of the first attempt; further attempts count up from it.
        noise: Standard deviation of the Gaussian disturbance; actions are in [-1, 1].
        draw_every: Draw one of so many control steps, if the world has pictures. Software draws for longer than it
            simulates, and neighbouring pictures show the same: so more episodes are recorded in the same time. The
            pictures between are black, and the array `drawn` marks the others.
        progress: Show a progress bar.

    Returns:
        Buffer of `state`, `environment_state` and `action`, `[n, size]` each, with `pixels` `[n, height, width, 3]` if
        the world has them, and with `drawn` `[n]` bool if not all are; and the number of attempts.

    Raises:
        ValueError: `num_episodes` or `draw_every` below 1, `noise` below 0, or a world without pictures is to be drawn.
        RuntimeError: The expert failed ten times as often as episodes were requested.
    """
    _check(env, num_episodes, noise, draw_every)
    world = env.unwrapped
    episodes: list[dict[str, np.ndarray]] = []
    attempts = 0
    with tqdm(total=num_episodes, desc=f"{world.task} expert", unit="episode", disable=not progress) as bar:
        while len(episodes) < num_episodes:
            if attempts - len(episodes) >= MOST_FAILURES * num_episodes:
                raise RuntimeError(
                    f"{world.task}: the expert succeeded in {len(episodes)} of {attempts} attempts with noise={noise}"
                )
            episode, success = play_expert(env, first_seed + attempts, noise, draw_every)
            attempts += 1
            if success:
                episodes.append(episode)
                bar.update()
    attrs = {
        "env": world.family,
        "task": world.task,
        "control_hz": world.control_hz,
        "instruction": world.instruction,
    }
    return ReplayBuffer.from_episodes(episodes, attrs), attempts


def _check(env: gym.Env[Observation, np.ndarray], num_episodes: int, noise: float, draw_every: int) -> None:
    if num_episodes < 1 or noise < 0:
        raise ValueError(f"need num_episodes >= 1 and noise >= 0, got {num_episodes} and {noise}")
    if draw_every < 1 or (draw_every > 1 and not env.has_wrapper_attr("drawing_every")):
        raise ValueError(
            f"draw_every: at least 1, and 1 in a world without pictures (pixels=96 adds them), got {draw_every}"
        )


def play_expert(
    env: gym.Env[Observation, np.ndarray], seed: int, noise: float = 0.0, draw_every: int = 1
) -> tuple[dict[str, np.ndarray], bool]:
    """Let the expert play one episode; see `record_expert`.

    Returns:
        Observations and the expert's actions, `[steps, ...]` each, and whether the episode succeeded.
    """
    first = seed % draw_every  # episodes begin to draw at different steps
    if draw_every == 1:
        return _play(env, seed, noise)
    with env.get_wrapper_attr("drawing_every")(draw_every, first):
        recorded, success = _play(env, seed, noise)
    return {**recorded, "drawn": np.arange(len(recorded["action"])) % draw_every == first}, success


def _play(env: gym.Env[Observation, np.ndarray], seed: int, noise: float) -> tuple[dict[str, np.ndarray], bool]:
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    recorded: dict[str, list[np.ndarray]] = defaultdict(list)
    for _ in range(env.unwrapped.max_episode_steps):
        action = env.unwrapped.expert_action()
        for name, value in observation.items():
            recorded[NAMES.get(name, name)].append(value)
        recorded["action"].append(action)
        disturbed = action + noise * rng.standard_normal(action.shape)
        observation, _, terminated, _, info = env.step(disturbed)
        if terminated:
            break
    return {name: np.stack(values) for name, values in recorded.items()}, info["is_success"]
