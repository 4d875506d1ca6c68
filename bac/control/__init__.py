"""Control a robot at a fixed rate with a policy that takes longer than a control step.

::

    control step   0 1 2 3 4 5 6 7 8 9 ...
    robot acts on  a a a a a a a b b b b b b b c ...     chunks a, b, c
    policy thinks          |- b -|       |- c -|         in a thread of its own, on what was observed as it began

The robot never waits: it acts on the chunk it has while the next one is computed. A chunk's first action belongs to
the control step whose observation it was computed from, so actions whose time has passed when it arrives are skipped.

Policies with real-time chunking (LeRobot's RTC) have an engine of their own, which guides a chunk by what is left of
the last one: run those, wrapped by `bac` or not, with ``lerobot-rollout --inference.type=rtc``.
"""

from bac.control.clock import Clock, Outcome, WallClock, Worker
from bac.control.loop import ControlLoop, Policy, Robot
from bac.control.statistics import Quantiles, Statistics
from bac.control.ticker import Ticker
from bac.control.timeline import Timeline

__all__ = [
    "Clock",
    "ControlLoop",
    "Outcome",
    "Policy",
    "Quantiles",
    "Robot",
    "Statistics",
    "Ticker",
    "Timeline",
    "WallClock",
    "Worker",
]
