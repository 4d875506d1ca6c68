"""Demonstrations on disk, in Diffusion Policy's zarr layout, under LeRobot's names."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_STATE

from policies.plain_arrays import refuse_code, require_whole

KEYS = {"state": OBS_STATE, "environment_state": OBS_ENV_STATE, "action": ACTION}
OBS_WRIST = f"{OBS_IMAGES}.wrist"
PIXELS, WRIST, DRAWN = "data/pixels", "data/pixels_wrist", "data/drawn"
REQUIRED = ("data/state", "data/action", "meta/episode_ends")
FEATURE_TYPES = {OBS_STATE: FeatureType.STATE, OBS_ENV_STATE: FeatureType.ENV, ACTION: FeatureType.ACTION}


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of control steps, one after the other.

    Args:
        arrays: LeRobot key to `[n, size]` float32; has at least "observation.state" and "action".
        episode_ends: Exclusive end of each episode, `[E]`.
        attrs: Origin of the episodes: "env", "task", "control_hz" [Hz].
        pictures: What a camera saw, `[n, height, width, 3]` uint8, if that was recorded and is asked for; of the drawn
            control steps only, if not all are.
        part_ends: Exclusive end of each recording among the episodes; None for one recording.
        instructions: The task of each recording in words, as a policy is told it; empty if that is not known.
        wrist: What a camera on the wrist saw, as `pictures`.
        drawn: Marks the control steps that have a picture, `[n]` bool; None for all.
    """

    arrays: dict[str, np.ndarray]
    episode_ends: np.ndarray
    attrs: dict[str, Any]
    pictures: np.ndarray | None = None
    part_ends: tuple[int, ...] | None = None
    instructions: tuple[str, ...] = ()
    wrist: np.ndarray | None = None
    drawn: np.ndarray | None = None

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
        cameras = [name for name in (PIXELS, WRIST) if pictures and name in group]
        require_whole(path, group, cameras)
        drawn = np.asarray(group[DRAWN], bool) if cameras and DRAWN in group else None
        kept = slice(None) if drawn is None else drawn
        seen = {name: np.asarray(group[name], np.uint8)[kept] for name in cameras}
        attrs = dict(group.attrs)
        told = (attrs["instruction"],) if "instruction" in attrs else ()
        ends = np.asarray(group["meta/episode_ends"], np.int64)
        return cls(arrays, ends, attrs, seen.get(PIXELS), None, told, seen.get(WRIST), drawn)

    @classmethod
    def join(cls, parts: Sequence["Demonstrations"]) -> "Demonstrations":
        """Put recordings one after the other.

        Raises:
            ValueError: The recordings differ in their arrays or control_hz, or only some have pictures or words.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        kinds = {(*part.arrays, *part.cameras(), f"{len(part.instructions)} instructions") for part in parts}
        if len(kinds) > 1 or len({part.attrs["control_hz"] for part in parts}) > 1:
            raise ValueError(f"data: recordings to join must hold the same at the same control_hz, got {sorted(kinds)}")
        steps = np.cumsum([0, *(part.episode_ends[-1] for part in parts)])
        tasks = dict.fromkeys(part.attrs["task"] for part in parts)
        return cls(
            {key: np.concatenate([part.arrays[key] for part in parts]) for key in first.arrays},
            np.concatenate([part.episode_ends + start for part, start in zip(parts, steps, strict=False)]),
            {**first.attrs, "task": ", ".join(tasks)},
            _joined([part.pictures for part in parts]),
            tuple(np.cumsum([part.num_episodes for part in parts]).tolist()),
            tuple(instruction for part in parts for instruction in part.instructions),
            _joined([part.wrist for part in parts]),
            None
            if all(part.drawn is None for part in parts)
            else np.concatenate([part.has_picture() for part in parts]),
        )

    @property
    def num_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.episode_ends)

    def cameras(self) -> dict[str, np.ndarray]:
        """The pictures by LeRobot key; none if there are none."""
        seen = {OBS_IMAGE: self.pictures, OBS_WRIST: self.wrist}
        return {key: pictures for key, pictures in seen.items() if pictures is not None}

    def has_picture(self) -> np.ndarray:
        """Marks the control steps that have a picture, `[n]` bool."""
        return np.ones(self.episode_ends[-1], bool) if self.drawn is None else self.drawn

    def held_out(self, share: float) -> np.ndarray:
        """Marks the last `share` of the episodes of every recording, at least one of each, `[E]` bool."""
        marks = np.zeros(self.num_episodes, bool)
        start = 0
        for end in self.part_ends or (self.num_episodes,):
            marks[end - max(1, round((end - start) * share)) : end] = True
            start = end
        return marks

    def words(self) -> list[str]:
        """The instruction of every control step, `[n]`; empty if there are none."""
        starts = [0, *(int(self.episode_ends[end - 1]) for end in self.part_ends or (self.num_episodes,))]
        counts = np.diff(starts)
        return [text for text, count in zip(self.instructions, counts, strict=False) for _ in range(count)]

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
        """The arrays of one episode, each `[steps, size]`, and its pictures if all are drawn, by LeRobot key."""
        start = 0 if index == 0 else self.episode_ends[index - 1]
        arrays = {**self.arrays, **(self.cameras() if self.drawn is None else {})}
        return {key: array[start : self.episode_ends[index]] for key, array in arrays.items()}


def _joined(pictures: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The pictures of one camera in all recordings; None if it has none."""
    seen = [part for part in pictures if part is not None]
    return np.concatenate(seen) if seen else None


def find_demonstrations(data: str | Sequence[str]) -> list[str]:
    """The recordings that ``data=`` names: a path, a pattern such as ``data/ten/*.zarr``, or a list of these.

    Raises:
        FileNotFoundError: A pattern matches nothing.
    """
    found = []
    for name in [data] if isinstance(data, str) else data:
        matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        if not matches:
            raise FileNotFoundError(f"{name}: no demonstrations here. Record them: python -m envs.collect")
        found += matches
    return found
