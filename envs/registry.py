"""The table of environments by name, and the two functions that build them."""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from envs.pixels import WithPixels

ENVIRONMENTS = {
    "adroit": "envs.adroit:AdroitEnv",
    "metaworld": "envs.metaworld:MetaWorldEnv",
    "pusht": "envs.pusht:PushTEnv",
    "so101": "envs.so101:SO101Env",
}
WITH_WRIST = ("so101",)  # worlds that have a camera on the wrist


def make(name: str, *, pixels: int | None = None, wrist: bool = False, **kwargs: Any) -> gym.Env[Any, Any]:
    """Build one environment, and import its simulator.

    Args:
        name: A key of `ENVIRONMENTS`.
        pixels: Height and width of a picture that every observation has too, as ``pixels`` [pixels]; None for none.
        wrist: Every observation has a picture of the camera on the wrist too, as ``pixels_wrist``.
        kwargs: Arguments of the environment, such as ``task="assembly-v3"`` for ``"metaworld"``.

    Returns:
        The environment, truncated after its `max_episode_steps`.

    Raises:
        ValueError: No environment has that name, `pixels` is below 1, or there is no camera on the wrist.
    """
    if name not in ENVIRONMENTS:
        raise ValueError(f"env {name!r}: no such environment. {suggest(name, ENVIRONMENTS)}")
    if wrist and (pixels is None or name not in WITH_WRIST):
        raise ValueError(
            f"wrist: {', '.join(WITH_WRIST)} has a camera on the wrist, and pixels is the size of its pictures; give "
            f"pixels=96, too. Got env {name!r} and pixels={pixels}"
        )
    module, _, cls = ENVIRONMENTS[name].partition(":")
    make_world = getattr(importlib.import_module(module), cls)
    if pixels is None:
        env = make_world(**kwargs)
        return TimeLimit(env, env.max_episode_steps)
    if pixels < 1:
        raise ValueError(f"pixels: must be at least 1, or None for no pictures, got {pixels}")
    env = make_world(width=pixels, height=pixels, **kwargs)
    return TimeLimit(WithPixels(env, pixels, wrist=wrist), env.max_episode_steps)


def make_vec(
    name: str, num_envs: int, *, autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP, **kwargs: Any
) -> SyncVectorEnv:
    """Build `num_envs` copies of an environment that step together in this process.

    ``reset(seed=[s0, s1, ...])`` gives row i the episode that a single environment has after
    ``reset(seed=si)``; rows do not influence each other.

    Args:
        name: A key of `ENVIRONMENTS`.
        num_envs: Number of copies, at least 1.
        autoreset_mode: gymnasium's mode of resetting a row whose episode is over.
        kwargs: Arguments of each environment, see `make`.

    Raises:
        ValueError: No environment has that name, or `num_envs` is below 1.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs: at least one environment is needed, got {num_envs}")
    return SyncVectorEnv([lambda: make(name, **kwargs)] * num_envs, autoreset_mode=autoreset_mode)


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the `known` names closest to `name`, or all of them if none is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(known)}."
