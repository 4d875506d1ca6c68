"""The queue between many robots and one batched policy server: pure arithmetic on latencies.

Every robot asks for a chunk once per `chunk_s`, the time in which it executes one, independently of the others. A free
server takes the waiting requests, oldest first, up to its largest batch. The next batch gathers while the server is
busy. A batching window, in which a free server waits for more requests, would therefore only make robots wait longer.
"""

import heapq
import random
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchedServer:
    """A server, described by the latencies of its batches.

    Attributes:
        latency_s: Batch size to latency [s]. A batch between two sizes is padded to the larger.

    Raises:
        ValueError: There is no size, a size is below 1, or a latency is not positive.
    """

    latency_s: Mapping[int, float]

    def __post_init__(self) -> None:
        if not self.latency_s or min(self.latency_s) < 1 or min(self.latency_s.values()) <= 0:
            raise ValueError(f"latency_s: needs batch sizes from 1 with positive latencies, got {dict(self.latency_s)}")

    @property
    def largest(self) -> int:
        """The largest batch."""
        return max(self.latency_s)

    def of(self, batch: int) -> float:
        """Latency of a batch of 1 to `largest` [s]."""
        sizes = sorted(self.latency_s)
        return self.latency_s[sizes[bisect_left(sizes, batch)]]

    @property
    def chunks_per_s(self) -> float:
        """Most chunks per second, at the best batch size [Hz]."""
        return max(batch / seconds for batch, seconds in self.latency_s.items())

    def saturated(self, chunk_s: float) -> int:
        """Number of robots that keep the server busy without a pause: an upper limit that ignores waiting.

        Args:
            chunk_s: Time in which a robot executes a chunk [s].
        """
        return int(self.chunks_per_s * chunk_s + 1e-9)


def responses(server: BatchedServer, robots: int, chunk_s: float, *, cycles: int = 40, seed: int = 0) -> list[float]:
    """Simulate the queue, and return the time from request to answer of every chunk [s], ascending.

    Args:
        server: The server.
        robots: Number of robots; each asks at a random phase of its own.
        chunk_s: Time between two requests of a robot [s].
        cycles: Chunks per robot.
        seed: Seed of the phases.
    """
    draw = random.Random(seed)
    phases = sorted(draw.uniform(0, chunk_s) for _ in range(robots))
    asked = list(heapq.merge(*([phase + k * chunk_s for k in range(cycles)] for phase in phases)))
    waited, free, first = [], 0.0, 0
    while first < len(asked):
        begin = max(free, asked[first])
        last = min(bisect_left(asked, begin, lo=first + 1), first + server.largest)
        free = begin + server.of(last - first)
        waited += [free - asked[index] for index in range(first, last)]
        first = last
    return sorted(waited)


def fed(server: BatchedServer, chunk_s: float, slack_s: float, *, cycles: int = 40) -> int:
    """The most robots of which none waits longer than `slack_s` in the simulation; 0 if even a single robot does.

    Args:
        server: The server.
        chunk_s: Time in which a robot executes a chunk [s].
        slack_s: Time between asking for a chunk and needing it [s].
        cycles: Chunks per robot.
    """
    low, high = 0, server.saturated(chunk_s)
    while low < high:
        robots = (low + high + 1) // 2
        if responses(server, robots, chunk_s, cycles=cycles)[-1] <= slack_s:
            low = robots
        else:
            high = robots - 1
    return low
