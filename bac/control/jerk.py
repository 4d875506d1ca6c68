"""Jerk: the third difference of the actions sent, inside chunks and at the seams between them.

A robot that moves evenly has a small one. A seam shows how well consecutive chunks agree, and is where robots shake.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from math import isnan, nan, sqrt

import numpy as np

from bac.control.timeline import Actions

_WINDOW = 4  # actions that make one third difference


@dataclass(frozen=True)
class Jerk:
    """Root of the mean squared third difference of the actions sent [action's unit per control step^3].

    The mean is over time and the components of an action, so components should have one unit. NaN if there was none.

    Attributes:
        inside: Of four actions in a row from one chunk.
        seam: Of four actions in a row that are not: from two chunks, or held for want of one.
        all: Of any four actions in a row.
    """

    inside: float
    seam: float
    all: float

    def __str__(self) -> str:  # chunks of which fewer than four actions are executed have none inside
        parts = {"inside": self.inside, "seam": self.seam, "all": self.all}
        return "  ".join(f"{name} {'none' if isnan(jerk) else f'{jerk:.4g}'}" for name, jerk in parts.items())


class JerkMeter:
    """Sums squared third differences while actions are sent. It keeps four actions, however long the run.

    Attributes:
        squares: Sum of the mean squares: inside chunks, at seams.
        counts: Number of third differences: inside chunks, at seams.
    """

    def __init__(self) -> None:
        self._sent: deque[tuple[Actions, int | None]] = deque(maxlen=_WINDOW)
        self.squares, self.counts = [0.0, 0.0], [0, 0]

    def add(self, action: Actions, chunk: int | None) -> None:
        """Note the action of the next control step, `[Da]`, and the number of its chunk; None if it was held."""
        self._sent.append((action, chunk))
        if len(self._sent) < _WINDOW:
            return
        a, b, c, d = (np.asarray(sent, np.float64) for sent, _ in self._sent)
        chunks = {number for _, number in self._sent}
        place = int(len(chunks) > 1 or None in chunks)
        self.squares[place] += float(np.mean((d - 3 * c + 3 * b - a) ** 2))
        self.counts[place] += 1

    def skip(self) -> None:
        """A control step had no action: the actions before and after it are not in a row."""
        self._sent.clear()

    def jerk(self) -> Jerk:
        """The jerk so far."""
        return jerk_of(self.squares, self.counts)


def jerk_of(squares: list[float], counts: list[int]) -> Jerk:
    """The jerk of the sums of a `JerkMeter`, or of several added up."""
    parts = [*zip(squares, counts, strict=True), (sum(squares), sum(counts))]
    return Jerk(*(sqrt(square / count) if count else nan for square, count in parts))


def jerk_of_switches(chunks: Actions) -> Jerk:
    """The jerk of switching from one chunk to the next at its middle row, each from the same observation.

    Args:
        chunks: Actions, `[B, n, T, Da]`: n chunks of B observations. The middle row of T is row T // 2.
    """
    squares, counts = [0.0, 0.0], [0, 0]
    middle = chunks.shape[2] // 2
    for row in chunks:
        for number, (old, new) in enumerate(pairwise(row)):
            meter = JerkMeter()
            for action in old[:middle]:
                meter.add(action, number)
            for action in new[middle:]:
                meter.add(action, number + 1)
            squares = [a + b for a, b in zip(squares, meter.squares, strict=True)]
            counts = [a + b for a, b in zip(counts, meter.counts, strict=True)]
    return jerk_of(squares, counts)
