"""Episodes in which the jerk of the executed actions is summed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bac.control.jerk import JerkMeter
from eval.play.rollout import EpisodeResult, Seat


@dataclass(frozen=True)
class MeteredResult(EpisodeResult):
    """Outcome and jerk of one episode.

    Attributes:
        squares: See `bac.control.jerk.JerkMeter`.
        counts: See `bac.control.jerk.JerkMeter`.
    """

    squares: list[float]
    counts: list[int]


class MeteredSeat(Seat):
    """One running episode in a world that waits for its chunks. Arguments are those of `Seat`."""

    def start(self, seed: int) -> None:
        """See `Seat`."""
        super().start(seed)
        self._meter = JerkMeter()

    def execute(self, chunk: np.ndarray) -> None:
        """See `Seat`."""
        before = self.num_control_steps
        super().execute(chunk)
        for action in chunk[: self.num_control_steps - before]:
            self._meter.add(action, self.chunk_index)

    def result(self) -> Any:
        """See `Seat`."""
        plain = super().result()
        return MeteredResult(**vars(plain), squares=list(self._meter.squares), counts=list(self._meter.counts))
