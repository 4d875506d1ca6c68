"""Demonstrations on disk, in Diffusion Policy's zarr layout.

::

    buffer.zarr/
      data/state, data/action, ...    [n, ...]   the control steps of all episodes, one after the other
      meta/episode_ends               [E]        exclusive end of each episode; the last one is n
      .zattrs                                    env, task, control_hz

Buffers are written in zarr format 2, so that Diffusion Policy can read them too. Formats 2 and 3 can be read.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from envs.plain_arrays import refuse_code, require_whole


@dataclass(frozen=True)
class ReplayBuffer:
    """Episodes of control steps, concatenated.

    Args:
        arrays: Recorded values of each control step by name, `[n, ...]` each.
        episode_ends: Exclusive end of each episode, `[E]` int64, increasing; the last one is n.
        attrs: Origin of the episodes: ``env``, ``task``, ``control_hz`` [Hz].

    Raises:
        ValueError: The ends do not increase, an array has another length, or a number is not finite.
    """

    arrays: Mapping[str, np.ndarray]
    episode_ends: np.ndarray
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ends = np.asarray(self.episode_ends, np.int64)
        object.__setattr__(self, "episode_ends", ends)
        if ends.ndim != 1 or ends.size == 0 or (np.diff(ends, prepend=0) <= 0).any():
            raise ValueError(f"episode_ends: must increase from above 0, one end per episode, got {ends}")
        for name, array in self.arrays.items():
            if len(array) != ends[-1]:
                raise ValueError(f"{name}: must have {ends[-1]} rows, the last episode end, got {len(array)}")
            if not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise ValueError(f"{name}: must be finite, row {row} is {array[row]}")

    @classmethod
    def from_episodes(cls, episodes: Sequence[Mapping[str, np.ndarray]], attrs: Mapping[str, Any]) -> "ReplayBuffer":
        """Concatenate one or more episodes. Each maps the same names to `[steps, ...]`."""
        arrays = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
        lengths = [len(next(iter(episode.values()))) for episode in episodes]
        return cls(arrays, np.cumsum(lengths), attrs)

    @classmethod
    def load(cls, path: str | Path) -> "ReplayBuffer":
        """Read a whole zarr folder of this layout into memory.

        Raises:
            FileNotFoundError: There is no zarr group at `path`.
            ValueError: The group lacks ``data`` or ``meta/episode_ends``, or its content is invalid.
        """
        group = open_group(path)
        if "data" not in group or "meta/episode_ends" not in group:
            raise ValueError(f"{path}: a replay buffer has data/* and meta/episode_ends, this has {sorted(group)}")
        # Of other arrays, a part that is all zeros may not have been written.
        require_whole(path, group, [name for name in ("data/state", "data/action") if name in group])
        require_whole(path, group, ["meta/episode_ends"])
        arrays = {name: array[:] for name, array in sorted(group["data"].arrays())}
        return cls(arrays, group["meta/episode_ends"][:], dict(group.attrs))

    def save(self, path: str | Path) -> None:
        """Write a zarr folder. At any moment `path` holds the old buffer, nothing, or the whole new buffer."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            group = zarr.open_group(Path(folder, "new"), mode="w", zarr_format=2, attributes=dict(self.attrs))
            for name, array in self.arrays.items():
                group.create_array(f"data/{name}", data=array, config={"write_empty_chunks": True})
            group.create_array("meta/episode_ends", data=self.episode_ends)
            if path.exists():
                path.rename(Path(folder, "old"))
            try:
                Path(folder, "new").rename(path)
            except BaseException:
                if Path(folder, "old").exists():  # or it would be removed with the folder
                    Path(folder, "old").rename(path)
                raise

    @property
    def num_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.episode_ends)

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of episode `index`, from 0 to E - 1, each `[steps, ...]`."""
        start = self.episode_ends[index - 1] if index else 0
        return {name: array[start : self.episode_ends[index]] for name, array in self.arrays.items()}


def open_group(path: str | Path) -> zarr.Group:
    """Open a zarr group for reading.

    Raises:
        FileNotFoundError: There is no zarr group at `path`.
        ValueError: Decoding an array of it could run code.
    """
    refuse_code(path)
    try:
        return zarr.open_group(path, mode="r", use_consolidated=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no zarr group here. To record one: "
            "python -m envs.collect env=metaworld task=assembly-v3 episodes=100"
        ) from error
