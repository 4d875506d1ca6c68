"""Demonstrations on disk, in Diffusion Policy's zarr layout.

::

    buffer.zarr/
      data/state, data/action, ...    [n, ...]   the control steps of all episodes, one after the other
      meta/episode_ends               [E]        exclusive end of each episode: E episodes, the last end is n
      .zattrs                                    env, task, control_hz

Written as zarr format 2, so that Diffusion Policy reads it too.
"""

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr


@dataclass(frozen=True)
class ReplayBuffer:
    """Episodes of control steps, concatenated.

    Args:
        arrays: What was recorded at each control step, by name; each `[n, ...]`.
        episode_ends: Exclusive end of each episode, `[E]` int64, increasing, the last one n.
        attrs: Where the episodes come from: ``env``, ``task``, ``control_hz`` [Hz].

    Raises:
        ValueError: An array of another length, a number that is not finite, or ends that do not increase.
    """

    arrays: Mapping[str, np.ndarray]
    episode_ends: np.ndarray
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ends = np.asarray(self.episode_ends, np.int64)
        object.__setattr__(self, "episode_ends", ends)
        if ends.ndim != 1 or ends.size == 0 or (np.diff(ends, prepend=0) <= 0).any():
            raise ValueError(f"episode_ends: must increase from above 0, one end per episode, got {ends[:5]}")
        for name, array in self.arrays.items():
            if len(array) != ends[-1]:
                raise ValueError(f"{name}: must have {ends[-1]} rows, the last episode end, got {len(array)}")
            if not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise ValueError(f"{name}: must be finite, row {row} is {array[row]}")

    @classmethod
    def from_episodes(
        cls, episodes: list[Mapping[str, np.ndarray]], attrs: Mapping[str, Any]
    ) -> "ReplayBuffer":
        """Concatenate episodes, each a mapping of name to `[steps, ...]`, all with the same names."""
        if not episodes:
            raise ValueError("episodes: a replay buffer needs at least one, got none")
        arrays = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
        lengths = [len(next(iter(episode.values()))) for episode in episodes]
        return cls(arrays, np.cumsum(lengths), attrs)

    @classmethod
    def load(cls, path: str | Path) -> "ReplayBuffer":
        """Read a zarr folder of this layout, zarr format 2 or 3, whole into memory.

        Raises:
            FileNotFoundError: There is no zarr group at `path`.
            ValueError: The group lacks ``data`` or ``meta/episode_ends``, or its content is invalid.
        """
        try:
            group = zarr.open_group(path, mode="r")
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path}: no zarr group here. Make one: python -m envs.collect env=metaworld task=assembly-v3"
            ) from error
        missing = [name for name in ("data", "meta/episode_ends") if name not in group]
        if missing:
            raise ValueError(f"{path}: a replay buffer has data/* and meta/episode_ends, this lacks {missing}")
        arrays = {name: array[:] for name, array in group["data"].arrays()}
        return cls(arrays, group["meta/episode_ends"][:], dict(group.attrs))

    def save(self, path: str | Path) -> None:
        """Write the buffer as a zarr folder; `path` holds the old content or the new, never a part."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        group = zarr.open_group(unfinished, mode="w", zarr_format=2, attributes=dict(self.attrs))
        for name, array in self.arrays.items():
            group.create_array(f"data/{name}", data=array)
        group.create_array("meta/episode_ends", data=self.episode_ends)
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)

    @property
    def num_episodes(self) -> int:
        """How many episodes the buffer holds."""
        return len(self.episode_ends)

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one episode, each `[steps, ...]`."""
        start = 0 if index == 0 else self.episode_ends[index - 1]
        return {name: array[start : self.episode_ends[index]] for name, array in self.arrays.items()}
