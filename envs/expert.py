"""Demonstrations by the expert of a world."""

from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from envs.replay_buffer import ReplayBuffer
from envs.spaces import Observation

FIRST_SEED = 100_000  # far from evaluation, which counts up from 0
MOST_FAILURES = 10  # per requested episode


class WorldWithExpert(Protocol):
    """A world of `envs` that knows its expert's action in the current state. `family` is its name in `ENVIRONMENTS`."""

    family: str
    task: str
    control_hz: float
    max_episode_steps: int

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]: ...

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]: ...

    def expert_action(self) -> np.ndarray: ...


def record_expert(
    env: WorldWithExpert,
    num_episodes: int,
    *,
    first_seed: int = FIRST_SEED,
    noise: float = 0.0,
    progress: bool = True,
) -> tuple[ReplayBuffer, int]:
    """Record the expert of one task. Only successful episodes are kept, up to the step that succeeds.

    With `noise` the world executes a disturbed action, but the expert's clean action is recorded. So the buffer also
    shows how to recover. The noise injection is DART, Laskey et al. (CoRL 2017).

    Args:
        env: The world of the task.
        num_episodes: Number of successful episodes to record, at least 1.
        first_seed: Seed of the first attempt; further attempts count up from it.
        noise: Standard deviation of the Gaussian disturbance; actions are in [-1, 1].
        progress: Show a progress bar.

    Returns:
        Buffer of `state`, `environment_state` and `action`, `[n, size]` each, and the number of attempts.

    Raises:
        ValueError: `num_episodes` below 1 or `noise` below 0.
        RuntimeError: The expert failed ten times as often as episodes were requested.
    """
    if num_episodes < 1 or noise < 0:
        raise ValueError(f"need num_episodes >= 1 and noise >= 0, got {num_episodes} and {noise}")
    episodes: list[dict[str, np.ndarray]] = []
    attempts = 0
    with tqdm(total=num_episodes, desc=f"{env.task} expert", unit="episode", disable=not progress) as bar:
        while len(episodes) < num_episodes:
            if attempts - len(episodes) >= MOST_FAILURES * num_episodes:
                raise RuntimeError(
                    f"{env.task}: the expert succeeded in {len(episodes)} of {attempts} attempts with noise={noise}"
                )
            episode, success = play_expert(env, first_seed + attempts, noise)
            attempts += 1
            if success:
                episodes.append(episode)
                bar.update()
    attrs = {"env": env.family, "task": env.task, "control_hz": env.control_hz}
    return ReplayBuffer.from_episodes(episodes, attrs), attempts


def play_expert(env: WorldWithExpert, seed: int, noise: float = 0.0) -> tuple[dict[str, np.ndarray], bool]:
    """Let the expert play one episode; see `record_expert`.

    Returns:
        Observations and the expert's actions, `[steps, ...]` each, and whether the episode succeeded.
    """
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    recorded: dict[str, list[np.ndarray]] = {"state": [], "environment_state": [], "action": []}
    for _ in range(env.max_episode_steps):
        action = env.expert_action()
        recorded["state"].append(observation["agent_pos"])
        recorded["environment_state"].append(observation["environment_state"])
        recorded["action"].append(action)
        observation, _, _, _, info = env.step(action + noise * rng.standard_normal(action.shape))
        if info["is_success"]:
            break
    return {name: np.stack(values) for name, values in recorded.items()}, info["is_success"]
