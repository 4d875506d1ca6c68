"""Observations in order of time as a policy visits them, and disturbed ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bac.tuning.batches import merged
from eval.play.visit import visited
from eval.setup.batches import Batch


@dataclass(frozen=True)
class Observations:
    """Preprocessed observations in order of time, episode by episode.

    Attributes:
        batch: Preprocessed observations, `[n, To, D]` each.
        episode: Number of each observation's episode, `[n]`.
        phase: Progress of the episode at each observation, `[n]` in [0, 1].
    """

    batch: Batch
    episode: np.ndarray
    phase: np.ndarray

    def __len__(self) -> int:
        return len(self.episode)

    def where(self, chosen: np.ndarray) -> "Observations":
        """Select observations.

        Args:
            chosen: Mask of the observations to keep, bool `[n]`.
        """
        batch = {key: values[torch.from_numpy(chosen)] for key, values in self.batch.items()}
        return Observations(batch, self.episode[chosen], self.phase[chosen])


def visit(loaded: Any, make_env: Callable[[], Any], seeds: Sequence[int], rows: int) -> Observations:
    """Visit `rows` observations of each episode, evenly spread over it, with the policy on a fast solver."""
    episodes = [visited(loaded, make_env, seed, rows, episodes=1) for seed in seeds]
    numbers, phases = np.arange(len(seeds)), np.linspace(0, 1, rows)
    return Observations(dict(merged(episodes)), np.repeat(numbers, rows), np.tile(phases, len(seeds)))


def noisy(observations: Observations, size: float, seed: int = 0) -> Observations:
    """Add independent normal noise with standard deviation `size`, in normalised units, to every number."""
    generator = torch.Generator().manual_seed(seed)
    batch = {k: v + size * torch.randn(v.shape, generator=generator) for k, v in observations.batch.items()}
    return replace(observations, batch=batch)


def dead_sensor(observations: Observations) -> Observations:
    """Replace the world's state by the middle of its range."""
    key = "observation.environment_state"
    return replace(observations, batch={**observations.batch, key: torch.zeros_like(observations.batch[key])})
