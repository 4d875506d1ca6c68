"""Where demonstrations come from: MetaWorld's scripted experts and Push-T's 206 human episodes."""

from pathlib import Path

import numpy as np
import zarr
from tqdm import tqdm

from envs.registry import make
from envs.replay_buffer import ReplayBuffer

FIRST_SEED = 100_000  # far from the evaluation's seeds 0, 1, ...


def record_expert(
    task: str, num_episodes: int, *, first_seed: int = FIRST_SEED, noise: float = 0.0
) -> tuple[ReplayBuffer, int]:
    """Record MetaWorld's scripted expert, keeping the episodes that succeed.

    An episode ends with the control step that succeeds. With `noise`, the world executes a disturbed action while
    the expert's clean one is recorded, so the buffer also shows how to come back (as in DART, Laskey et al. 2017).

    Args:
        task: A MetaWorld task, such as ``"assembly-v3"``.
        num_episodes: How many successful episodes to keep.
        first_seed: Seed of the first attempt; the next attempts count on from it.
        noise: Standard deviation of the Gaussian disturbance of executed actions, whose range is [-1, 1].

    Returns:
        The buffer (`state` `[n, 4]`, `environment_state` `[n, 35]`, `action` `[n, 4]`) and the number of attempts.
    """
    env = make("metaworld", task=task)
    episodes: list[dict[str, np.ndarray]] = []
    attempts = 0
    with tqdm(total=num_episodes, desc=f"{task}: expert", unit="episode") as progress:
        while len(episodes) < num_episodes:
            episode, success = _expert_episode(env, first_seed + attempts, noise)
            attempts += 1
            if success:
                episodes.append(episode)
                progress.update()
    attrs = {"env": "metaworld", "task": task, "control_hz": env.unwrapped.control_hz}
    return ReplayBuffer.from_episodes(episodes, attrs), attempts


def _expert_episode(env, seed, noise):
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    steps = []
    over = False
    while not over:
        action = env.unwrapped.expert_action()
        steps.append((observation["agent_pos"], observation["environment_state"], action))
        executed = action + noise * rng.standard_normal(action.shape, np.float32)
        observation, _, terminated, truncated, info = env.step(executed)
        over = terminated or truncated
    names = ("state", "environment_state", "action")
    return {n: np.stack(v) for n, v in zip(names, zip(*steps, strict=True), strict=True)}, info["is_success"]


def load_human_demonstrations(path: str | Path) -> ReplayBuffer:
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            states, actions, ends = arrays["state"], arrays["action"], arrays["episode_ends"]
    else:
        group = zarr.open_group(path, mode="r")
        states, actions, ends = group["data/state"][:], group["data/action"][:], group["meta/episode_ends"][:]
    from envs.pusht import keypoints

    arrays = {
        "state": states[:, :2].astype(np.float32),
        "environment_state": keypoints(states[:, 2:].astype(np.float64)),
        "action": actions.astype(np.float32),
    }
    return ReplayBuffer(arrays, ends, {"env": "pusht", "task": "pusht", "control_hz": 10.0})
