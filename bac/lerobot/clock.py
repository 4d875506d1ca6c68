"""Hides the time of a preparation from LeRobot's engine of real-time chunking.

The engine (LeRobot 0.6.1) plans every chunk for the largest latency it ever measured, and drops as many actions of the
new chunk. A preparation takes seconds, once, before the robot moves. Counted as a latency, it would cost the first
chunk and delay every later one. So the engine gets a clock that stands still while its thread prepares.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any

from bac.adapters.lerobot.names import RTC_CLOCK

logger = logging.getLogger(__name__)


class _Clock:
    """Python's module `time`, except that `perf_counter` leaves out what the calling thread has hidden."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def perf_counter(self) -> float:
        """Seconds on a clock that stood still meanwhile."""
        return time.perf_counter() - getattr(_HIDDEN, "seconds", 0.0)


def hide(seconds: float) -> None:
    """Take `seconds` [s] off the latency that the engine is measuring in this thread, if it is loaded."""
    module_name, _, attribute = RTC_CLOCK.rpartition(".")
    engine = sys.modules.get(module_name)
    if engine is None:
        return
    clock = getattr(engine, attribute, None)
    if clock is time:
        clock = _CLOCK
        setattr(engine, attribute, clock)
    if clock is _CLOCK:
        _HIDDEN.seconds = getattr(_HIDDEN, "seconds", 0.0) + seconds
    else:
        logger.warning(
            "bac: this LeRobot has no %s, so real-time chunking counts the %.1f s of the preparation as a latency; "
            "start it with BAC=intercept, which prepares nothing",
            RTC_CLOCK, seconds,
        )  # fmt: skip


_CLOCK = _Clock()
_HIDDEN = threading.local()
