"""The drift guard checks whether a fixed schedule still holds for the robot's observations.

A schedule is made from the observations of one environment. In another one, blocks may change faster between their
updates, without any sign of it. A guard probes some action chunks, at little cost::

    guard = bac.guarding.calibrate(policy, schedule, batches)       # the untouched policy, on observations
    bac.wrap(policy, schedule, guard=replace(guard, response="dense"))
    print(bac.guarding.report(policy))

Under LeRobot's commands, ``BAC_GUARD`` puts the guard beside the schedule on duty; ``bac guard`` makes one.

In a *probed* chunk some reused blocks, chosen at random, are computed as well. Their computed outputs are compared with
the reused ones and then dropped, so the actions are those of an unprobed chunk. An error above the calibrated limit of
the block and step is an exceedance. Sequential betting on exceedances (`bac.guarding.evidence`) raises the alarm, and
bounds how often false alarms come.

A guard gives orders (probe, fall back). A denoising run takes them when it begins and keeps them until it ends, so no
run mixes two schedules. A probed run is always interpreted. Both schedules keep plans of their own.

A guard measures the caching error, not the observation: a shift under which the cached policy still follows the
computed one goes unnoticed, as it should. (`bac.plan.staleness` watches something else: whether the *policy* is still
the recorded one.)
"""

from bac.guarding.calibration import calibrate
from bac.guarding.guard import Guard
from bac.guarding.interceptor import report
from bac.guarding.monitor import Alarm, Report

__all__ = ["Alarm", "Guard", "Report", "calibrate", "report"]
