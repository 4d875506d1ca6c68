"""The guard's interceptor: topmost on the sampler, it gives the next run its orders."""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from typing import Any

import torch
from torch import Tensor

from bac.caching.interceptors.patch import Interceptor, stacked
from bac.caching.interceptors.run import DenoisingRun, Orders
from bac.caching.interceptors.turn import Turn
from bac.errors import RunError
from bac.guarding.monitor import Alarm, Monitor, Report
from bac.guarding.probe import Probe
from bac.plan.executor import Replayer

logger = logging.getLogger(__name__)

_MARGIN = 0.5  # of the calibrated range, on either side
_LEAST_MARGIN = 0.05  # of the largest calibrated magnitude: a gripper that was always open has a range of no width
_ROUNDING = 1e-3  # of a dimension that was always 0


class GuardInterceptor(Interceptor):
    """Intercepts a sampler: it orders probes, takes in their errors, checks the actions, and orders the fallback.

    Orders change only here, before a denoising run begins; the run keeps the orders it began with.

    Args:
        monitor: The guard on duty.
        run: The sampler's run.
        batch_dim: Dimension of a block's output that counts samples.
    """

    role = "guard"

    def __init__(self, monitor: Monitor, run: DenoisingRun, batch_dim: int) -> None:
        self.monitor = monitor
        self.run = run
        self.batch_dim = batch_dim
        self._has_warned = False
        self._range: tuple[Tensor, Tensor] | None = None
        self._turn = Turn()

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if isinstance(self.original, Replayer) and self.original.on_demand:  # a recording is no chunk of the robot
            return self.original(*inputs, **options)
        this_call = sys._getframe()
        try:
            if self._turn.take(this_call) is not None:  # a second thread or a nested call, which the run itself refuses
                return self.original(*inputs, **options)
            return self._look_at(*inputs, **options)
        finally:
            self._turn.leave(this_call)

    def __deepcopy__(self, memo: dict[int, Any]) -> GuardInterceptor:
        clone = GuardInterceptor.__new__(GuardInterceptor)
        memo[id(self)] = clone
        kept = {name: value for name, value in vars(self).items() if name != "_turn"}
        vars(clone).update(copy.deepcopy(kept, memo))
        clone._turn = Turn()
        return clone

    def __str__(self) -> str:
        guard = self.monitor.guard
        return f"probes one chunk in {guard.probe_every}; {self.monitor.report().num_alarms} alarms so far"

    def _look_at(self, *inputs: Any, **options: Any) -> Any:
        cells = self.monitor.begin()
        probe = Probe(cells, self.batch_dim) if cells else None
        self.run.orders_ahead = Orders(self.monitor.falls_back, probe)
        try:
            output = self.original(*inputs, **options)
        finally:
            self.run.orders_ahead = Orders(self.monitor.falls_back)  # a probe serves one run
        if probe is not None and (errors := probe.errors()):
            self._tell(self.monitor.note(errors))
        if isinstance(output, Tensor) and (reason := self._oddity(output.detach())):
            self._tell(self.monitor.alarm(reason))
        return output

    def _oddity(self, actions: Tensor) -> str | None:
        """The fault of an action chunk, `[..., Da]`, in words; None if it has none."""
        if not bool(torch.isfinite(actions).all()):
            return "the actions are not finite"
        calibrated = self.monitor.guard.action_range
        if calibrated is None or actions.shape[-1] != len(calibrated[0]):
            return None
        if self._range is None or self._range[0].device != actions.device:
            low, high = torch.tensor(calibrated, device=actions.device)
            least = (_LEAST_MARGIN * torch.maximum(low.abs(), high.abs())).clamp_min(_ROUNDING)
            margin = torch.maximum(_MARGIN * (high - low), least)
            self._range = low - margin, high + margin
        outside = (actions < self._range[0]) | (actions > self._range[1])
        if not bool(outside.any()):
            return None
        which = outside.flatten(0, -2).any(dim=0).nonzero().flatten().tolist()
        return f"actions are far outside of the calibrated range, in dimension {', '.join(map(str, which))}"

    def _tell(self, alarm: Alarm | None) -> None:
        """Warn of the first alarm, log the others."""
        if alarm is None:
            return
        guard = self.monitor.guard
        then = "bac.guarding.report(policy) tells more"
        if guard.changes_schedule:
            until = "policy.reset()" if guard.cooldown is None else f"{guard.cooldown} chunks have been made"
            what = "every block is computed" if guard.response == "dense" else "the denser schedule is followed"
            then = f"from the next chunk on {what}, until {until}; {then}"
        message = f"drift guard, chunk {alarm.chunk}: {alarm.reason}; {then}"
        logger.warning(message) if self._has_warned else warnings.warn(message, RuntimeWarning, stacklevel=5)
        self._has_warned = True


class EndOnReset(Interceptor):
    """Ends a guard's response when the policy's episode ends."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.monitor.reset()
        return self.original(*inputs, **options)


def report(policy: object) -> Report:
    """The report of a wrapped policy's guard.

    Raises:
        RunError: The policy has no guard.
    """
    return monitor_of(policy).report()


def monitor_of(policy: object) -> Monitor:
    """The monitor of a wrapped policy's guard.

    Raises:
        RunError: The policy has no guard.
    """
    for interceptor in stacked(policy):
        if isinstance(interceptor, GuardInterceptor):
            return interceptor.monitor
    raise RunError(f"{type(policy).__name__}: has no guard; put one on: bac.wrap(policy, schedule, guard=guard)")
