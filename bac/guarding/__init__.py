"""The drift guard: does a fixed schedule still hold for what the robot sees?

A schedule is made from observations of one world. In another one the blocks may change faster between the steps at
which they are computed, and nothing would say so. A guard looks now and then, at little cost::

    guard = bac.guarding.calibrate(policy, schedule, batches)       # the untouched policy, on observations
    bac.wrap(policy, schedule, guard=replace(guard, response="dense"))
    print(bac.guarding.report(policy))

Under LeRobot's commands ``BAC_GUARD`` puts a guard on duty that lies beside the schedule; ``bac guard`` makes one.

In a *probed* chunk some reused blocks, chosen at random, are computed as well. What they computed is compared with what
the cache returned, and thrown away: the actions are those of any other chunk. An error above the limit that was
calibrated for the block and step is an exceedance. Exceedances are bet on (`bac.guarding.evidence`), so an alarm comes
with a promise about false ones.

A guard gives orders (probe, fall back), which a denoising run takes when it begins and keeps until it ends, so no
switch falls inside one. A probed run is always interpreted. Both schedules keep plans of their own.

What it sees is the caching error, not the observation: a shift under which the cached policy still follows the
computed one goes unnoticed, and should. (`bac.plan.staleness` notices
something else: that a *policy* is no longer the one that was recorded.)
"""

from bac.guarding.calibration import calibrate
from bac.guarding.guard import Guard
from bac.guarding.interceptor import report
from bac.guarding.monitor import Alarm, Report

__all__ = ["Alarm", "Guard", "Report", "calibrate", "report"]
