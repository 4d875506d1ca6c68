"""Memory that the CUDA graphs of one device share.

A graph keeps the memory of all that it computes. A policy that serves 1, 2, 4, 8 and 16 robots has five graphs, and
would hold that memory five times. They can share one pool if no two of them run at once and nobody reads a result
after another graph began: so they take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


class GraphMemory:
    """A pool of memory, and the turns of the graphs in it.

    Attributes:
        pool: What `torch.cuda.graph` takes as its ``pool``.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self._lock = threading.Lock()
        self._read = torch.cuda.Event()  # type: ignore[no-untyped-call]  # the last results were read

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Launch one graph and copy its results; the next one waits for that, on whatever stream it runs."""
        with self._lock:
            stream = torch.cuda.current_stream()
            stream.wait_event(self._read)
            try:
                yield
            finally:
                self._read.record(stream)

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Nobody else captures into the pool, or launches a graph in it, meanwhile."""
        with self._lock:
            yield


@cache
def memory_of(device: int) -> GraphMemory:
    """The memory of a CUDA device, by its number."""
    with torch.cuda.device(device):
        return GraphMemory()
