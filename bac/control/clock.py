"""Time and threads. The control loop needs nothing else of the machine, so a test can replace both."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger(__name__)

JOIN_S = 1.0
SWITCH_S = 0.0005


@dataclass(frozen=True)
class Outcome:
    """The result of a piece of work.

    Attributes:
        value: The returned value; None if it raised.
        error: The exception; None if it returned.
        latency_s: Duration of the work [s].
    """

    value: Any
    error: BaseException | None
    latency_s: float


class Worker(Protocol):
    """Does one piece of work at a time, beside the loop."""

    def submit(self, work: Callable[[], Any]) -> None:
        """Begin work. The caller has taken the last outcome."""

    def outcome(self) -> Outcome | None:
        """The outcome of finished work, once; None while it goes on, or without any work. Never waits."""

    def wait(self, until_s: float) -> Outcome | None:
        """As `outcome`, but wait for it until the clock's `until_s` [s]."""

    def close(self) -> None:
        """Take no more work. Unfinished work is abandoned."""


class Clock(Protocol):
    """The source of the loop's time."""

    def now(self) -> float:
        """Monotonic time [s]."""

    def sleep_until(self, time_s: float) -> None:
        """Return at `time_s` [s] or later; at once if it has passed."""

    def worker(self, name: str) -> Worker:
        """A new worker that measures latency by this clock. Its thread is named for what it runs."""


class WallClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep_until(self, time_s: float) -> None:
        while (left := time_s - time.perf_counter()) > 0:  # a sleep may end early
            time.sleep(left)

    def worker(self, name: str) -> Worker:
        return ThreadWorker(name)


class ThreadWorker:
    """One daemon thread for all work, since PyTorch would build thread pools anew for every new thread.

    A thread cannot be ended from outside: one that hangs stays until the process ends.

    Args:
        name: What the thread runs.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"bac-{name}", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any]) -> None:
        self._work.put(work)

    def outcome(self) -> Outcome | None:
        try:
            return self._outcomes.get_nowait()
        except queue.Empty:
            return None

    def wait(self, until_s: float) -> Outcome | None:
        try:
            return self._outcomes.get(timeout=max(0.0, until_s - time.perf_counter()))
        except queue.Empty:
            return None

    def close(self) -> None:
        self._work.put(None)
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            logger.warning("the thread %s does not end; it stays until the process ends", self._thread.name)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            value, error, begun = None, None, time.perf_counter()
            try:
                value = work()
            except BaseException as raised:  # sys.exit() would end the thread silently
                error = raised
            self._outcomes.put(Outcome(value, error, time.perf_counter() - begun))


class _Switching:
    """The interpreter's switch interval. It is one for the process, so the last who leaves gives it back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, 0.0

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, SWITCH_S))
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                sys.setswitchinterval(self._before)


_switching = _Switching()


@contextmanager
def prompt_threads() -> Iterator[None]:
    """Give a waking thread the interpreter within half a millisecond, for the duration of a ``with`` block.

    Otherwise a policy busy in Python may keep it for 5 ms, a quarter of a control step at 50 Hz. Process-wide: where
    several loops run, until the last one ends.
    """
    _switching.enter()
    try:
        yield
    finally:
        _switching.leave()
