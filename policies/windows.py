"""Windows of demonstrations, from which a policy learns.

A window belongs to a current step. It has To observations that end at this step, and T actions that start at the first
of these observations. Outside its episode it repeats the nearest step, and `action_is_pad` marks those actions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from lerobot.utils.constants import ACTION
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """All windows of a set of episodes, as rows of tensors in memory.

    Args:
        tensors: Normalised control steps by LeRobot key, each `[n, ...]`.
        observation_rows: Rows of each window's observations, `[windows, To]`.
        action_rows: Rows of each window's actions, `[windows, T]`.
        action_is_pad: Marks action rows that replace a step outside the episode, `[windows, T]` bool.
        pictures: What cameras saw by LeRobot key, `[m, height, width, 3]`, in the control steps that have a picture.
        picture_rows: Rows of each window's pictures, `[windows, To]`.
    """

    tensors: dict[str, Tensor]
    observation_rows: Tensor
    action_rows: Tensor
    action_is_pad: Tensor
    pictures: dict[str, Tensor]
    picture_rows: Tensor

    @classmethod
    def cut(
        cls,
        tensors: dict[str, Tensor],
        episode_ends: np.ndarray,
        observation_offsets: list[int],
        action_offsets: list[int],
        drop_n_last: int,
        chosen: np.ndarray | None = None,
        pictures: dict[str, Tensor] | None = None,
        drawn: np.ndarray | None = None,
    ) -> "Windows":
        """Cut windows from normalised control steps; see `window_rows`.

        A policy that sees has no window where a picture is missing. `drawn` marks the control steps that have one.

        Raises:
            ValueError: No window has all its pictures.
        """
        observation_rows, _ = window_rows(episode_ends, observation_offsets, drop_n_last, chosen)
        action_rows, padded = window_rows(episode_ends, action_offsets, drop_n_last, chosen)
        has_picture = np.ones(episode_ends[-1], bool) if drawn is None or not pictures else drawn
        seen = has_picture[observation_rows].all(axis=1)
        if drawn is not None and not seen.any():
            raise ValueError(
                f"drawn: no window of {len(observation_offsets)} observations has all its pictures; record with a "
                "smaller draw_every: python -m envs.collect draw_every=1"
            )
        picture_rows = (has_picture.cumsum() - 1)[observation_rows]
        observed, acted, pad, drawn_rows = (
            torch.from_numpy(rows[seen]) for rows in (observation_rows, action_rows, padded, picture_rows)
        )
        return cls(tensors, observed, acted, pad, pictures or {}, drawn_rows)

    def __len__(self) -> int:
        return len(self.action_rows)

    def batch(self, chosen: Tensor) -> dict[str, Tensor]:
        """The batch of the windows with numbers `chosen` `[B]`, as LeRobot's policies take it in training."""
        batch = {
            key: tensor[self.action_rows[chosen] if key == ACTION else self.observation_rows[chosen]]
            for key, tensor in self.tensors.items()
        }
        pictures = {key: seen[self.picture_rows[chosen]] for key, seen in self.pictures.items()}
        return {**batch, **pictures, "action_is_pad": self.action_is_pad[chosen]}


def window_rows(
    episode_ends: np.ndarray, offsets: list[int], drop_n_last: int = 0, chosen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of every window. There is one window per control step, and it stays in that step's episode.

    Args:
        episode_ends: Exclusive end of each episode, `[E]`.
        offsets: Steps of a window relative to its current step, such as ``[-1, 0]``.
        drop_n_last: Number of control steps at the end of each episode that get no window.
        chosen: Marks the episodes to cut windows from, `[E]` bool; None for all.

    Returns:
        Rows `[windows, len(offsets)]`, and a bool mask of that shape: true for rows that replace a step outside the
        episode.
    """
    rows, padded = [], []
    starts = np.concatenate([[0], episode_ends[:-1]])
    wished = slice(None) if chosen is None else chosen
    for start, end in zip(starts[wished], episode_ends[wished], strict=True):
        current = np.arange(start, max(end - drop_n_last, start))
        wanted = current[:, None] + np.asarray(offsets)[None, :]
        rows.append(wanted.clip(start, end - 1))
        padded.append((wanted < start) | (wanted >= end))
    return np.concatenate(rows), np.concatenate(padded)
