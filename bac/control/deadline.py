"""Calls of other people's code, each with a deadline, so that nothing that hangs can stop the loop that asks it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bac.control.clock import Clock, Worker
from bac.errors import ControlError


class Deadline:
    """Calls functions one after another in a thread of their own, and waits for each only so long.

    A call that hangs cannot be ended. It keeps its thread, and later calls get another one.

    Args:
        clock: The source of time and of threads.
        name: Name of the thread.
        option: Option that sets the time-out, for messages.
        timeout_s: Longest time for a call [s]; None calls in the caller's thread, without a limit.
    """

    def __init__(self, clock: Clock, name: str, option: str, timeout_s: float | None) -> None:
        self._clock, self._name, self._option, self.timeout_s = clock, name, option, timeout_s
        self._worker: Worker | None = None
        self._left: list[Worker] = []
        self._is_busy = False

    def __call__(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Return what `function` returns.

        Args:
            what: Name of the call in messages, such as ``robot: observe()``.
            function: Called with `args`.

        Raises:
            ControlError: It raised, or did not return in time.
        """
        try:
            return function(*args) if self.timeout_s is None else self._within(self.timeout_s, what, function, *args)
        except ControlError:
            raise
        except Exception as error:
            raise ControlError(f"{what} raised {error!r}") from error

    def close(self) -> None:
        """Take no more calls. A thread that hangs stays until the process ends."""
        for worker in [*self._left, *filter(None, [self._worker])]:
            worker.close()

    def _within(self, timeout_s: float, what: str, function: Callable[..., Any], *args: Any) -> Any:
        worker = self._free_worker(timeout_s)
        self._is_busy = True  # and stays so if an interrupt ends the wait
        worker.submit(partial(function, *args))
        outcome = worker.wait(self._clock.now() + timeout_s)
        self._is_busy = False
        if outcome is None:
            self._leave(worker)
            raise ControlError(
                f"{what} hung: it has not returned after {timeout_s:g} s. If it may take that long, allow more: "
                f"{self._option}"
            )
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def _free_worker(self, timeout_s: float) -> Worker:
        """A worker without work. Work whose wait was interrupted gets its time-out anew."""
        if self._worker is not None and self._is_busy and self._worker.wait(self._clock.now() + timeout_s) is None:
            self._leave(self._worker)
        if self._worker is None:
            self._worker = self._clock.worker(self._name)
        return self._worker

    def _leave(self, worker: Worker) -> None:
        self._left.append(worker)
        self._worker = None
