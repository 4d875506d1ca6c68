"""Run a guard's own arithmetic on random streams of observations whose errors are known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

import bac
from bac.caching.block import BlockStep
from bac.guarding.monitor import Monitor
from bac.guarding.probe import Errors


@dataclass(frozen=True)
class Streams:
    """Random orders of episodes.

    Attributes:
        count: Number of streams.
        num_chunks: Chunks of each stream.
    """

    count: int
    num_chunks: int

    def walk(self, guard: bac.Guard, errors: Mapping[BlockStep, Errors], episode: np.ndarray) -> list[list[int]]:
        """The chunks at which a guard raises an alarm, stream by stream.

        Args:
            guard: The guard; every stream gives it another seed.
            errors: Errors of all observations at each reused cell, `[n]`.
            episode: Number of each observation's episode, `[n]`.
        """
        generator = np.random.default_rng(0)
        return [
            alarms(replace(guard, seed=seed), errors, stream(episode, self.num_chunks, generator))
            for seed in range(self.count)
        ]


def stream(episode: np.ndarray, chunks: int, generator: np.random.Generator) -> Iterator[int]:
    """Rows in order of time: whole episodes, drawn with replacement, until there are `chunks`."""
    rows = [np.flatnonzero(episode == number) for number in np.unique(episode)]
    while chunks > 0:
        chosen = rows[generator.integers(len(rows))][:chunks]
        chunks -= len(chosen)
        yield from chosen.tolist()


def alarms(guard: bac.Guard, errors: Mapping[BlockStep, Errors], rows: Iterator[int]) -> list[int]:
    """The chunks, counted from 1, at which a guard raises an alarm as it walks a stream."""
    monitor, found = Monitor(guard), []
    for chunk, row in enumerate(rows, 1):
        if (cells := monitor.begin()) and monitor.note({cell: errors[cell][row : row + 1] for cell in cells}):
            found.append(chunk)
    return found
