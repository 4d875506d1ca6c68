"""Demonstrations on disk, in Diffusion Policy's zarr layout, under LeRobot's names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGE, OBS_STATE

from policies.plain_arrays import refuse_code, require_whole

KEYS = {"state": OBS_STATE, "environment_state": OBS_ENV_STATE, "action": ACTION}
PIXELS = "data/pixels"
REQUIRED = ("data/state", "data/action", "meta/episode_ends")
FEATURE_TYPES = {OBS_STATE: FeatureType.STATE, OBS_ENV_STATE: FeatureType.ENV, ACTION: FeatureType.ACTION}


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of control steps, one after the other.

    Args:
        arrays: LeRobot key to `[n, size]` float32; has at least "observation.state" and "action".
        episode_ends: Exclusive end of each episode, `[E]`.
        attrs: Origin of the episodes: "env", "task", "control_hz" [Hz].
        pictures: What a camera saw, `[n, height, width, 3]` uint8, if that was recorded and is asked for.
    """

    arrays: dict[str, np.ndarray]
    episode_ends: np.ndarray
    attrs: dict[str, Any]
    pictures: np.ndarray | None = None

    @classmethod
    def load(cls, path: str | Path, *, pictures: bool = False) -> "Demonstrations":
        """Read a whole replay buffer into memory, its pictures only if they are asked for.

        Raises:
            FileNotFoundError: There is no zarr group at `path`.
            ValueError: The group lacks states, actions or episode ends, or a part of them; or decoding could run code.
        """
        refuse_code(path)
        try:
            group = zarr.open_group(path, mode="r", use_consolidated=False)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path}: no demonstrations here. Record them: python -m envs.collect") from error
        missing = [name for name in REQUIRED if name not in group]
        if missing:
            raise ValueError(f"{path}: demonstrations have state, action and episode_ends, this lacks {missing}")
        require_whole(path, group, REQUIRED)
        arrays = {
            key: np.asarray(group[f"data/{name}"], np.float32) for name, key in KEYS.items() if f"data/{name}" in group
        }
        seen = None
        if pictures and PIXELS in group:
            require_whole(path, group, [PIXELS])
            seen = np.asarray(group[PIXELS], np.uint8)
        return cls(arrays, np.asarray(group["meta/episode_ends"], np.int64), dict(group.attrs), seen)

    @property
    def num_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.episode_ends)

    def features(self) -> dict[str, PolicyFeature]:
        """Type and shape of every observation and of the action, by LeRobot key."""
        return {
            key: PolicyFeature(type=FEATURE_TYPES[key], shape=array.shape[1:]) for key, array in self.arrays.items()
        }

    def stats(self) -> dict[str, dict[str, np.ndarray]]:
        """Statistics "min", "max", "mean" and "std" of every key, `[size]` each."""
        return {
            key: {"min": a.min(0), "max": a.max(0), "mean": a.mean(0), "std": a.std(0)}
            for key, a in self.arrays.items()
        }

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one episode, each `[steps, size]`, and its pictures as "observation.image"."""
        start = 0 if index == 0 else self.episode_ends[index - 1]
        arrays = self.arrays if self.pictures is None else {**self.arrays, OBS_IMAGE: self.pictures}
        return {key: array[start : self.episode_ends[index]] for key, array in arrays.items()}
