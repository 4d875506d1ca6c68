"""Control a robot at a fixed rate with a policy that takes longer than a control step.

::

    control step   0 1 2 3 4 5 6 7 8 9 ...
    robot acts on  a a a a a a a b b b b b b b c ...     chunks a, b, c
    policy thinks          |- b -|       |- c -|         in its own thread, on the observation at its start

The robot never waits: it acts on its current chunk while the policy computes the next. A chunk's first action belongs
to the control step that was observed for it. Actions whose time has passed when the chunk arrives are skipped.

Policies with real-time chunking (LeRobot's RTC) have their own engine, which guides a chunk by the rest of the last
one. Run those, wrapped by `bac` or not, with ``lerobot-rollout --inference.type=rtc``.
"""

from bac.control.clock import Clock, Outcome, WallClock, Worker
from bac.control.jerk import Jerk, JerkMeter, jerk_of, jerk_of_switches
from bac.control.loop import ControlLoop, Policy, Robot
from bac.control.statistics import Quantiles, Statistics
from bac.control.ticker import Ticker
from bac.control.timeline import Timeline

__all__ = [
    "Clock",
    "ControlLoop",
    "Jerk",
    "JerkMeter",
    "Outcome",
    "Policy",
    "Quantiles",
    "Robot",
    "Statistics",
    "Ticker",
    "Timeline",
    "WallClock",
    "Worker",
    "jerk_of",
    "jerk_of_switches",
]
